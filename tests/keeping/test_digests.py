"""Damaged checkpoints are refused by name, and the newest good step is taken."""

import hashlib
import json
import pathlib
import random
import shutil
from unittest.mock import ANY

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax import checkpoint, parallel
from fmjax.config import ConfigError
from fmjax.keeping import digests
from fmjax.start import resume
from tests.test_checkpoint import bits, finish, make


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A workdir with steps 1 and 2 and the best step 2; (folder, states, abstract)."""
    root = tmp_path_factory.mktemp("sound")
    store, states = checkpoint.Checkpoints(root), {}
    for step in (1, 2):
        state, abstract = make(seed=step)
        states[step] = state._replace(step=jnp.full((), step, jnp.int32))
        store.save(step, states[step], {"best": step / 3, "best_step": 1})
    store.save_best(2, states[2].params, states[2].extras)
    store.close()
    return root, states, abstract


@pytest.fixture
def workdir(sound, tmp_path):
    shutil.copytree(sound[0], tmp_path / "w")
    return tmp_path / "w"


def restore(workdir, abstract):
    """((state, progress), what is damaged), as a run would see them."""
    store = checkpoint.Checkpoints(workdir)
    try:
        return resume.newest(store, abstract), store.damaged
    finally:
        store.close()


def files(folder):
    late = ("_CHECKPOINT_METADATA", "commit_success.txt")
    found = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    return [p for p in found if p.relative_to(folder).as_posix() not in late]


def flip(path: pathlib.Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    place = rng.randrange(8 * len(data))
    data[place // 8] ^= 1 << place % 8
    path.write_bytes(data)


class TestArrays:
    def digest(self, x):
        return digests.finish(digests.start({"x": x}))["x"]

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "bool", "uint32"])
    def test_every_flipped_bit_changes_them(self, dtype):
        x = jnp.zeros((2, 3), dtype)
        raw = np.asarray(x)
        seen = {self.digest(x)}
        for place in range(8 * raw.nbytes):
            data = bytearray(raw.tobytes())
            data[place // 8] ^= 1 << place % 8
            if dtype == "bool" and max(data) > 1:
                continue
            seen.add(self.digest(np.frombuffer(bytes(data), raw.dtype).reshape(2, 3)))
        assert len(seen) == 1 + (6 if dtype == "bool" else 8 * raw.nbytes)

    def test_order_shape_and_dtype_count(self):
        x = jnp.arange(6.0)
        others = (x[::-1], x.reshape(2, 3), x.reshape(3, 2), x.astype(jnp.int32))
        assert len({self.digest(x), *map(self.digest, others)}) == 5
        minus = x.at[0].set(-0.0)
        assert self.digest(minus) != self.digest(x)

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "bool", "uint16"])
    @pytest.mark.parametrize("part", [(), (0,), (7,), (3, 4, 5)])
    def test_a_small_part_is_summed_as_a_large_one(self, dtype, part):
        rng = np.random.default_rng(0)
        given = jnp.asarray(rng.integers(0, 256, part), jnp.dtype(dtype))
        whole = tuple(2 * n + 3 for n in part)  # of which it is some part
        first = np.array([n + 1 for n in part], np.uint32)
        large = np.asarray(digests._sums(given, first, whole))
        here = digests._sums_here(np.asarray(given), first, whole)
        assert here.dtype == large.dtype
        np.testing.assert_array_equal(here, large)

    @pytest.mark.parametrize("devices", [1, 2, 8])
    def test_how_an_array_is_cut_does_not_count(self, devices):
        x = jax.random.normal(jax.random.key(0), (16, 8))
        plan = parallel.plan(devices=devices)
        assert self.digest(jax.device_put(x, plan.rows)) == self.digest(x)


class TestRestore:
    def test_a_sound_workdir_is_taken_whole(self, sound, workdir):
        (state, progress), damaged = restore(workdir, sound[2])
        assert bits(state) == bits(sound[1][2])
        assert (progress["best_step"], damaged) == (1, [])

    def test_a_flipped_bit_anywhere_is_named_and_the_older_step_taken(
        self, sound, tmp_path
    ):
        rng = random.Random(0)
        step = sound[0] / "checkpoints" / "2"
        for trial, path in enumerate(files(step)):
            workdir = tmp_path / str(trial)
            shutil.copytree(sound[0], workdir)
            name = path.relative_to(step)
            flip(workdir / "checkpoints" / "2" / name, rng)
            (state, progress), (said,) = restore(workdir, sound[2])
            assert bits(state) == bits(sound[1][1])
            assert progress["best"] == 1 / 3
            assert f"checkpoints/2: {name}" in said
            assert (workdir / "damaged" / "checkpoints-2").is_dir()
            assert not (workdir / "checkpoints" / "2").exists()

    @pytest.mark.parametrize("fault", ["truncated", "emptied", "deleted", "swapped"])
    def test_a_file_that_is(self, sound, workdir, fault):
        step = workdir / "checkpoints" / "2"
        path = max(files(step), key=lambda path: path.stat().st_size)
        if fault == "truncated":
            path.write_bytes(path.read_bytes()[:-1])
        elif fault == "emptied":
            path.write_bytes(b"")
        elif fault == "deleted":
            path.unlink()
        else:
            path = step / "state" / "manifest.ocdbt"
            shutil.copy(workdir / "checkpoints/1/state/manifest.ocdbt", path)
        (state, _), (said,) = restore(workdir, sound[2])
        assert bits(state) == bits(sound[1][1])
        assert path.name in said

    def test_a_step_under_another_ones_name(self, sound, workdir):
        room = workdir / "checkpoints"
        shutil.copytree(room / "1", room / "3")
        (state, _), (said,) = restore(workdir, sound[2])
        assert bits(state) == bits(sound[1][2])
        assert "3: digests.json is that of step 1, not of 3" in said

    def test_digests_that_are_gone(self, sound, workdir):
        (workdir / "checkpoints/2/digests.json").unlink()
        (state, _), (said,) = restore(workdir, sound[2])
        assert bits(state) == bits(sound[1][1])
        assert "digests.json is gone" in said

    def test_arrays_are_checked_beside_files(self, sound, workdir):
        """Files as they were written, of other numbers: what only memory can do."""
        step = workdir / "checkpoints" / "2"
        known = digests.read(step)
        arrays = known.arrays | {"params/head/bias": "float32[8]:0123456789abcdef"}
        record = known._replace(arrays=arrays)._asdict()
        text = json.dumps(record | {"self": digests.of_json(record)})
        (step / digests.FILE).write_text(text)
        (state, _), (said,) = restore(workdir, sound[2])
        assert bits(state) == bits(sound[1][1])
        assert "params/head/bias: float32[8]:0123456789abcdef was written" in said

    def test_a_step_with_sha256_digests_is_read_and_checked(self, sound, workdir):
        """As they were before a method was named."""
        step = workdir / "checkpoints" / "2"
        record = json.loads((step / digests.FILE).read_text())
        assert (record.pop("method"), record.pop("self")) == (digests.METHOD, ANY)
        for name in record["files"]:
            digest = hashlib.sha256((step / name).read_bytes()).hexdigest()
            record["files"][name][1] = digest
        text = json.dumps(record | {"self": digests.of_json(record)})
        (step / digests.FILE).write_text(text)
        (state, _), damaged = restore(workdir, sound[2])
        assert (bits(state), damaged) == (bits(sound[1][2]), [])
        shutil.copytree(sound[0] / "checkpoints/2", workdir / "checkpoints/3")
        flip(step / "state" / "manifest.ocdbt", random.Random(3))
        _, damaged = restore(workdir, sound[2])
        assert "2: state/manifest.ocdbt differs from what was written" in damaged[1]

    @pytest.mark.parametrize("method", digests.METHODS)
    @pytest.mark.parametrize("size", [0, 1, 7, 8, 1003])
    def test_files_of_every_length(self, tmp_path, method, size):
        """Every flipped bit, and every cut, is seen."""
        data, path = random.Random(size).randbytes(size), tmp_path / "some"

        def digest(data):
            path.write_bytes(data)
            return str(digests._files(tmp_path, method)["some"])

        flips = [(i, 1 << bit) for i in range(0, size, 97) for bit in range(8)]
        others = [data[:i] + bytes([data[i] ^ bit]) + data[i + 1 :] for i, bit in flips]
        others += [data[:-1], data[::-1]] if size > 1 else []
        found = {digest(one) for one in (data, *others)}
        assert len(found) == 1 + len(others)

    def test_where_all_are_damaged_nothing_is_begun_anew(self, sound, workdir):
        for step in ("1", "2"):
            (workdir / "checkpoints" / step / "state" / "manifest.ocdbt").unlink()
        with pytest.raises(ConfigError, match="every step is damaged") as error:
            restore(workdir, sound[2])
        assert str(error.value).count("state/manifest.ocdbt is gone") == 2
        assert (workdir / "checkpoints" / "2").is_dir(), "nothing was moved"

    def test_after_falling_back_the_same_step_is_saved_again(self, sound, workdir):
        flip(workdir / "checkpoints/2/state/manifest.ocdbt", random.Random(1))
        _, states, abstract = sound
        store = checkpoint.Checkpoints(workdir)
        resume.newest(store, abstract)
        store.save(2, states[2], {"best": None})
        finish(store)
        assert store.step() == 2
        found, progress = resume.newest(store, abstract)
        store.close()
        assert bits(found) == bits(states[2])
        assert progress == {"best": None}

    def test_a_step_from_before_there_were_digests_is_read_with_a_warning(
        self, sound, workdir, caplog
    ):
        step = workdir / "checkpoints" / "2"
        (step / "digests.json").unlink()
        metadata = step / "_CHECKPOINT_METADATA"
        metadata.write_text(metadata.read_text().replace(digests.MARK, "other"))
        (state, _), damaged = restore(workdir, sound[2])
        assert (bits(state), damaged) == (bits(sound[1][2]), [])
        assert "has no digests: not verified" in caplog.text

    # What orbax had begun to read when it failed has no one to tell any more.
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_such_a_step_that_does_not_read_is_damaged(self, sound, workdir):
        step = workdir / "checkpoints" / "2"
        (step / "digests.json").unlink()
        metadata = step / "_CHECKPOINT_METADATA"
        metadata.write_text(metadata.read_text().replace(digests.MARK, "other"))
        (step / "state" / "manifest.ocdbt").write_bytes(b"no")
        (state, _), (said,) = restore(workdir, sound[2])
        assert bits(state) == bits(sound[1][1])
        assert "it does not read" in said


class TestBest:
    def test_damaged_weights_are_refused(self, sound, workdir):
        weights = checkpoint.weights(workdir)
        assert bits(weights["params"]) == bits(sound[1][2].params)
        flip(workdir / "best/2/weights/_METADATA", random.Random(2))
        with pytest.raises(ConfigError, match=r"best/2 is damaged.*weights/_METADATA"):
            checkpoint.weights(workdir)

    def test_a_run_that_goes_on_looks_for_the_best_anew(self, sound, workdir):
        flip(workdir / "best/2/weights/_METADATA", random.Random(2))
        (state, progress), (said,) = restore(workdir, sound[2])
        assert bits(state) == bits(sound[1][2])
        assert (progress["best"], progress["best_step"]) == (None, 0)
        assert "the best is looked for anew" in said
        assert (workdir / "damaged" / "best-2").is_dir()
