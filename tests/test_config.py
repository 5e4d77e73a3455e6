"""Parts by file name, overrides, durations, and messages that hold the remedy."""

import re
import sys

import pytest
from flax import linen as nn

from fmjax import config
from fmjax.config import ConfigError

FILE = """
from ml_collections import ConfigDict

def get_config(arg=""):
    c = ConfigDict()
    c.steps, c.size, c.rate, c.flag, c.note = "3 epochs", 4, 0.5, True, None
    c.pair = (1, 2)
    c.arg = arg
    c.model = dict(name="bert", width=32, depth=2, dtype="float32")
    c.data = dict(name="csv", path="a.csv", corpus=dict(name="text", path="b"))
    c.init_from = None
    return c
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "some.py"
    path.write_text(FILE)
    return str(path)


def settings(**changes):
    """The settings of a small run on images; a dict given is added to the part."""
    base = {
        "model": {"name": "cnn", "channels": (4,), "dense": 8, "classes": None},
        "objective": {"name": "classify"},
        "data": {"name": "synthetic_images", "size": 8, "shape": (8, 8, 1)},
        "inputs": {"name": "image"},
        "tokenizer": None,
    }
    return {
        key: value | changes[key] if isinstance(changes.get(key), dict) and value else
        changes.get(key, value)
        for key, value in base.items()
    }  # fmt: skip


class TestFind:
    @pytest.mark.parametrize(
        ("kind", "name", "builder"),
        [
            ("model", "bert", "Model"),
            ("objective", "classify", "objective"),
            ("data", "csv", "load"),
            ("inputs", "text", "make"),
            ("metrics", "classification", "compute"),
        ],
    )
    def test_a_name_is_a_file_name(self, kind, name, builder):
        module = config.find(kind, name)
        assert module.__file__.endswith(f"/{name}.py")
        assert callable(getattr(module, builder))

    def test_a_wrong_name_lists_the_right_ones(self):
        with pytest.raises(ConfigError) as error:
            config.find("model", "brt")
        assert "no model named 'brt'; did you mean 'bert'?" in str(error.value)
        assert "known: alexnet, bert, clip, cnn" in str(error.value)

    @pytest.mark.parametrize("name", ["", "os", "..config", "bert.Model", None, 3])
    def test_only_files_of_the_package_are_names(self, name):
        with pytest.raises(ConfigError, match="no model named"):
            config.find("model", name)

    def test_suggest_without_a_near_word(self):
        assert config.suggest("zzz", ["b", "a"]) == "known: a, b"
        assert config.suggest("ab", ["abc"]) == "did you mean 'abc'? known: abc"


def make(split, *, path, size=3, tokenizer=None):
    return split, path, size, tokenizer


class Net(nn.Module):
    width: int
    depth: int = 2


class TestBind:
    def test_fields_are_keyword_only_or_those_of_a_module(self):
        assert config.fields(make) == {"path", "size", "tokenizer"}
        assert config.fields(Net) == {"width", "depth"}

    def test_fills_in_settings_and_what_the_house_offers(self):
        bound = config.bind("data", make, {"path": "a"}, tokenizer="words", other=1)
        assert bound("train") == ("train", "a", 3, "words")

    def test_a_setting_wins_over_an_offer(self):
        bound = config.bind("data", make, {"path": "a", "tokenizer": 1}, tokenizer=2)
        assert bound("train")[-1] == 1

    def test_an_offer_serves_for_a_needed_setting(self):
        assert config.bind("data", make, None, path="house")("test")[1] == "house"

    def test_an_unknown_setting(self):
        with pytest.raises(ConfigError) as error:
            config.bind("data", make, {"path": "a", "sise": 1})
        assert "unknown setting data.sise; did you mean 'size'?" in str(error.value)
        assert "known: path, size, tokenizer" in str(error.value)

    @pytest.mark.parametrize("name", ["split", "parent", "name"])
    def test_positional_and_linen_fields_are_no_settings(self, name):
        function = make if name == "split" else Net
        with pytest.raises(ConfigError, match=f"unknown setting data.{name}"):
            config.bind("data", function, {name: 1})

    def test_a_missing_setting(self):
        with pytest.raises(ConfigError, match=r"data needs the setting data\.path"):
            config.bind("data", make, {"size": 1})
        with pytest.raises(ConfigError, match=r"model needs the setting model\.width"):
            config.bind("model", Net, {"depth": 1})


class TestPart:
    def test_builds_what_the_name_means(self):
        net = config.part("model", {"name": "cnn", "classes": 3, "dense": None})()
        assert type(net).__module__ == "fmjax.models.cnn"
        assert (net.classes, net.dense) == (3, None)

    def test_needs_a_name(self):
        with pytest.raises(ConfigError, match=r"model needs the setting model\.name"):
            config.part("model", {"classes": 3})

    def test_names_the_unknown_setting(self):
        with pytest.raises(
            ConfigError, match=r"model\.chanels; did you mean 'channels'"
        ):
            config.part("model", {"name": "cnn", "chanels": (3,)})


class TestLoad:
    def test_gives_a_plain_dict_with_the_argument(self, file):
        found = config.load(f"{file}:tiny")
        assert type(found) is dict
        assert type(found["model"]) is dict
        assert found["arg"] == "tiny"
        assert config.load(file)["arg"] == ""

    def test_no_such_file(self):
        with pytest.raises(ConfigError) as error:
            config.load("configs/cnn/mnst.py:tiny")
        assert "no config file 'configs/cnn/mnst.py'" in str(error.value)
        assert "did you mean 'configs/cnn/mnist.py'?" in str(error.value)

    def test_a_config_leaves_no_module_behind(self, file):
        before = set(sys.modules)
        config.load(file)
        assert "some" not in set(sys.modules) - before


class TestOverride:
    @pytest.mark.parametrize(
        ("key", "text", "value"),
        [
            ("size", "7", 7),
            ("rate", "1e-3", 1e-3),
            ("rate", "2", 2.0),
            ("flag", "false", False),
            ("flag", "True", True),
            ("note", "words, not a literal", "words, not a literal"),
            ("note", "None", None),
            ("note", "3", 3),
            ("size", "none", None),
            ("pair", "(3, 4)", (3, 4)),
            ("pair", "[3, 4]", [3, 4]),
            ("steps", "300", 300),
            ("steps", "5 epochs", "5 epochs"),
            ("model.width", "64", 64),
            ("data.corpus.path", "c", "c"),
            ("init_from.path", "runs/x", "runs/x"),
        ],
    )
    def test_sets(self, file, key, text, value):
        found = config.load(file, {key: text})
        for name in key.split("."):
            found = found[name]
        assert found == value
        assert type(found) is type(value)

    def test_a_duration_in_steps_may_become_one_with_a_unit(self, file):
        found = config.load(file, {"steps": "300"})
        config.override(found, "steps", "2 epochs")
        assert found["steps"] == "2 epochs"

    @pytest.mark.parametrize(
        ("key", "text", "message"),
        [
            ("rate", "fast", "--config.rate=fast: takes a float like 0.5"),
            ("rate", "true", "takes a float like 0.5"),
            ("flag", "1", "takes a bool like True"),
            ("size", "1.5", "takes a int like 4"),
            ("size", "many", "takes a int like 4"),
            ("size", "true", "takes a int like 4"),
            ("pair", "3", "takes a tuple like (1, 2)"),
            ("steps", "1.5", "takes a str like '3 epochs'"),
            ("model", "bert", "takes a dict"),
            ("modle.width", "3", "unknown setting modle; did you mean 'model'?"),
            ("data.corpse.path", "3", "unknown setting data.corpse; did you mean"),
            ("size.more", "3", "size holds 4, not settings"),
            ("model.name", "brt", "did you mean 'bert'?"),
            ("data.corpus.name", "txt", "did you mean 'text'?"),
        ],
    )
    def test_refuses(self, file, key, text, message):
        with pytest.raises(ConfigError, match=re.escape(message)):
            config.load(file, {key: text})

    def test_never_runs_code(self, file):
        text = "__import__('os').getpid()"
        assert config.load(file, {"note": text})["note"] == text

    def test_another_part_drops_the_fields_it_lacks_and_says_so(self, file, capsys):
        found = config.load(file, {"model.name": "cnn"})["model"]
        assert found == {"name": "cnn", "dtype": "float32"}
        said = capsys.readouterr().err.splitlines()
        assert sorted(said) == [
            "model: 'cnn' has no 'depth'; dropped",
            "model: 'cnn' has no 'width'; dropped",
        ]

    def test_the_same_part_keeps_its_fields_and_says_nothing(self, file, capsys):
        found = config.load(file, {"model.name": "bert", "model.oops": "1"})["model"]
        assert found["width"] == 32
        assert found["oops"] == 1  # refused by `part`, with the known names
        assert capsys.readouterr().err == ""

    def test_the_corpus_of_a_source_is_a_source(self, file, capsys):
        overrides = {"data.corpus.name": "synthetic_text", "data.corpus.size": "5"}
        found = config.load(file, overrides)["data"]["corpus"]
        assert found == {"name": "synthetic_text", "size": 5}
        assert (
            "data: 'synthetic_text' has no 'path'; dropped" in capsys.readouterr().err
        )

    def test_a_part_that_was_none_can_be_named(self, file):
        found = config.load(file)
        found["tokenizer"] = None
        config.override(found, "tokenizer.vocab_size", "128")
        assert found["tokenizer"] == {"vocab_size": 128}


class TestDuration:
    @pytest.mark.parametrize(
        ("text", "steps"),
        [
            (None, 0),
            (0, 0),
            (7, 7),
            ("7", 7),
            ("7 steps", 7),
            ("1 step", 1),
            (" 7steps ", 7),
            ("1_000 steps", 1000),
            ("1e3 steps", 1000),
            ("0.5 epochs", 5),
            (".5 epochs", 5),
            ("1 epoch", 10),
            ("3 epochs", 30),
            ("0.01 epochs", 1),
            ("32 examples", 1),
            ("33 examples", 2),
            ("6.4e2 examples", 20),
            ("10%", 20),
            ("0.1%", 1),
            ("100 %", 200),
            ("0%", 0),
        ],
    )
    def test_in_every_unit(self, text, steps):
        found = config.duration(text, "x", batch_size=32, examples=320, total=200)
        assert found == steps
        assert type(found) is int

    def test_an_epoch_that_does_not_divide_rounds_up(self):
        assert config.duration("1 epoch", "x", batch_size=32, examples=1003) == 32
        assert config.duration("3 epochs", "x", batch_size=3, examples=1) == 1
        assert config.duration("3 epochs", "x", batch_size=10, examples=10) == 3

    @pytest.mark.parametrize(
        "text",
        ["", "steps", "3 parsecs", "-3 steps", "3 steps 4", "1.2.3 epochs", "_ steps",
         "5 s", "5 %s", "3 stepss", "nan steps", "inf epochs", "1e400 steps", -5],
    )  # fmt: skip
    def test_no_duration(self, text):
        with pytest.raises(ConfigError, match=re.escape(f"x={text!r} is no duration")):
            config.duration(text, "x", batch_size=32, examples=320, total=200)

    def test_the_remedy_names_what_has_a_meaning_there(self):
        with pytest.raises(ConfigError) as error:
            config.duration("10%", "steps", batch_size=32, examples=320)
        known = "write '7 steps', '7 examples', '7 epochs'"
        assert str(error.value) == f"steps='10%' is no duration; {known}"
        with pytest.raises(ConfigError) as error:
            config.duration("1 epoch", "optim.warmup", total=200)
        known = "write '7 steps', '7%'"
        assert str(error.value) == f"optim.warmup='1 epoch' is no duration; {known}"


class TestAssemble:
    def test_classes_come_from_the_data(self):
        parts = config.assemble(settings(data={"classes": 7}))
        assert parts.model["classes"] == parts.net.classes == 7
        assert parts.tokenizer is None
        assert parts.predict is config.find("objective", "classify").predict
        assert len(parts.data("train").rows) == 8
        example = parts.inputs(parts.data("train").rows[0], None)
        assert example["inputs"].shape == (8, 8, 1)

    def test_a_split_is_loaded_once(self):
        parts = config.assemble(settings())
        assert parts.data("test") is parts.data("test")

    def test_given_classes_stay(self):
        assert config.assemble(settings(model={"classes": 12})).net.classes == 12

    def test_a_size_is_a_row_of_sizes_and_fields_win_over_it(self):
        given = settings(model={"size": "two"})
        del given["model"]["channels"], given["model"]["dense"]
        parts = config.assemble(given)
        assert (parts.net.channels, parts.net.dense) == ((32, 64), None)
        assert "size" not in parts.model
        given["model"]["dense"] = 5
        parts = config.assemble(given)
        assert (parts.net.channels, parts.net.dense) == ((32, 64), 5)

    def test_words_come_from_the_tokenizer(self, tmp_path, monkeypatch):
        monkeypatch.setenv("FMJAX_DATA", str(tmp_path))
        bert = {"name": "bert", "size": "tiny", "head": "classify"}
        given = settings() | {
            "model": bert | {"vocab_size": None, "classes": None},
            "data": {"name": "synthetic_text", "size": 16},
            "inputs": {"name": "text", "length": 16},
            "tokenizer": {
                "corpus": {"name": "synthetic_text", "size": 16},
                "vocab_size": 100,
            },
        }
        parts = config.assemble(given)
        words = parts.tokenizer.get_vocab_size()
        assert 5 < words <= 100
        assert parts.net.vocab_size == words
        assert parts.net.classes == len(parts.data("train").classes) > 1
        given["model"] |= {"vocab_size": words + 9}
        assert config.assemble(given).net.vocab_size == words + 9
        given["model"] |= {"vocab_size": words - 1}
        message = f"{words - 1}, fewer than the tokenizer's {words} words"
        with pytest.raises(ConfigError, match=message):
            config.assemble(given)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"model": {"name": "cn"}}, "no model named 'cn'; did you mean 'cnn'?"),
            ({"model": {"chanels": 1}}, "model.chanels; did you mean 'channels'?"),
            (
                {"model": {"size": "tow"}},
                "no model.size 'tow' of cnn; did you mean 'two'?",
            ),
            ({"objective": {"name": "clasify"}}, "did you mean 'classify'?"),
            ({"objective": {"smoothing": 1}}, "unknown setting objective.smoothing"),
            ({"data": {"name": "synthetic_image"}}, "did you mean 'synthetic_images'?"),
            ({"data": {"sise": 1}}, "unknown setting data.sise; did you mean 'size'?"),
            ({"data": {"classes": 1}}, "data (synthetic_images, train): classes=1"),
            (
                {"inputs": {"name": "imag"}},
                "no inputs named 'imag'; did you mean 'image'",
            ),
            ({"inputs": {"flop": 1}}, "inputs.flop; did you mean 'flip'?"),
            ({"inputs": {"std": -1.0}}, "inputs: std=-1.0 must be positive"),
            ({"tokenizer": {"vocab": 5}}, "unknown setting tokenizer.vocab"),
            ({"tokenizer": {"path": "no/file"}}, "tokenizer: no tokenizer at no/file"),
        ],
    )
    def test_fails_at_once_with_the_remedy(self, changes, message):
        with pytest.raises(ConfigError, match=re.escape(message)):
            config.assemble(settings(**changes))

    def test_data_without_labels_asks_for_the_number_of_classes(self, tmp_path):
        (tmp_path / "a.txt").write_text("one line\nanother line\n" * 40)
        given = settings() | {"data": {"name": "text", "path": str(tmp_path / "a.txt")}}
        with pytest.raises(
            ConfigError, match=r"set model\.classes; text does not tell it"
        ):
            config.assemble(given)

    def test_no_tokenizer_asks_for_the_number_of_words(self):
        model = {"name": "bert", "size": "tiny", "vocab_size": None}
        with pytest.raises(ConfigError, match=r"set model\.vocab_size"):
            config.assemble(settings() | {"model": model})

    def test_only_the_parts_own_errors_are_the_configs_fault(self):
        with (
            pytest.raises(ConfigError, match=r"^data: 'x'$") as error,
            config.blaming("data"),
        ):
            raise KeyError("x")
        assert isinstance(error.value.__cause__, KeyError)
        with pytest.raises(ConfigError, match=r"^as it was$"), config.blaming("data"):
            raise ConfigError("as it was")
        with pytest.raises(ZeroDivisionError), config.blaming("data"):
            raise ZeroDivisionError
