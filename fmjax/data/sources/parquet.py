"""The user's own Parquet file (needs pyarrow, in the extra `parquet`)."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fmjax.data import tables
from fmjax.data.source import Source
from fmjax.data.tables import Bad


def load(
    split: str,
    *,
    path: str | Mapping[str, str],
    text: str = "text",
    text2: str | None = None,
    label: str | None = "label",
    classes: Sequence[str] | None = None,
    bad_rows: str = "refuse",
    holdout: Sequence[float] = (0.1, 0.1),
) -> Source:
    """Rows of `text`, perhaps `text2` and `label`, and `id` (the row number, from 1).

    The fields are those of `sources/csv`; only the columns named are read. Raises
    ImportError without pyarrow, ValueError on a file that is no Parquet or lacks a
    column.
    """
    columns = [c for c in (text, text2, label) if c]

    def read(file: Path) -> Iterator[tuple[int, dict[str, Any] | Bad]]:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise ImportError(
                "reading Parquet needs pyarrow: pip install 'fmjax[parquet]'"
            ) from error
        try:
            table = pyarrow.parquet.ParquetFile(file)
        except (pyarrow.ArrowException, OSError) as error:
            raise ValueError(f"{file} is not a Parquet file: {error}") from error
        with table:
            known = table.schema_arrow.names
            missing = [c for c in columns if c not in known]
            if missing:
                raise ValueError(
                    f"{file} has no column {', '.join(missing)}; its columns are "
                    f"{', '.join(known)}: set data.text and data.label"
                )
            number = 0
            for batch in table.iter_batches(columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row

    return tables.load(
        "parquet",
        read,
        split,
        path=path,
        text=text,
        text2=text2,
        label=label,
        classes=classes,
        bad_rows=bad_rows,
        holdout=holdout,
    )
