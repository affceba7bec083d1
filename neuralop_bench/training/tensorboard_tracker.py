"""Runs in TensorBoard: configuration, curve, tables and figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuralop_bench.training.tracking import ResultTable

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoardTracker:
    """Event files in ``<run directory>/tensorboard``; ``tensorboard --logdir <paths.outputs>`` compares all runs.

    A resumed run continues in the same folder.
    """

    def __init__(self) -> None:
        self._writer: SummaryWriter | None = None
        self._step = 0

    def start(self, run_id: str, folder: Path, config: Mapping[str, Any]) -> None:
        """Open the event file.

        Raises:
            ImportError: TensorBoard isn't installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError(f"TensorBoard isn't installed ({error}). Run `pip install tensorboard`.") from error
        self._writer = SummaryWriter(str(folder / "tensorboard"))
        text = json.dumps(config, indent=2, default=str)
        self._writer.add_text("config", f"{run_id}\n\n```\n{text}\n```")

    def log(self, row: dict[str, float]) -> None:
        self._step = int(row["epoch"])
        if self._writer is not None:
            for name, value in row.items():
                if name != "epoch":
                    self._writer.add_scalar(f"training/{name}", value, self._step)

    def finish(
        self, metrics: Mapping[str, float | None], tables: Sequence[ResultTable], figures: Sequence[Path]
    ) -> None:
        if self._writer is None:
            return
        from matplotlib.image import imread

        writer, self._writer = self._writer, None
        try:
            for name, value in metrics.items():
                if value is not None:
                    writer.add_scalar(f"test/{name}", value, self._step)
            for table in tables:
                writer.add_text(f"tables/{table.title}", _markdown(table), self._step)
            for path in figures:
                writer.add_image(f"figures/{path.stem}", imread(path)[..., :3], self._step, dataformats="HWC")
        finally:
            writer.close()


def _markdown(table: ResultTable) -> str:
    rows = [table.header, ["---"] * len(table.header), *table.rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
