"""A training run from recipe to report: the run folder, the data, the model, training, and what it leaves."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console

from reformer.errors import UserError
from reformer.training.atomic import atomic_folder
from reformer.training.fine_tuning import Taken, has_vocabulary, names_of_new, take_weights
from reformer.training.interruption import Interruption
from reformer.training.json_file import read_json
from reformer.training.metrics import MetricsFile, Recorder, TensorBoardEvents, drop_metrics_after
from reformer.training.model_folder import resolve_device
from reformer.training.progress import ProgressDisplay
from reformer.training.recipe import Recipe
from reformer.training.run_data import RunData, check_same_data
from reformer.training.run_folder import (
    CHECKPOINTS,
    METRICS_FILE,
    MODEL,
    RECIPE_FILE,
    START_FILE,
    TENSORBOARD,
    checkpoint_steps,
    latest_checkpoint,
)
from reformer.training.run_start import check_run_folder, write_run_files

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from reformer.training.batches import StagedBatches
    from reformer.training.trainer import ReformerTrainer


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Attributes:
        folder: the run folder.
        step: the last optimizer step.
        interrupted: whether it was stopped by Ctrl-C before its last step.
        report: the path of `report.html`; None if interrupted, and on other than the main process.
    """

    folder: Path
    step: int
    interrupted: bool
    report: Path | None


class Task(Protocol):
    """What one kind of run does in its own way: its data, its model, and how that is trained on them.

    Attributes:
        command: the command that runs it, without the recipe.
    """

    command: str

    def open_data(self, recipe: Recipe) -> RunData:
        """Opens the data of a run; raises UserError for what is wrong with them."""

    def build_model(self, recipe: Recipe, data: RunData) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """A new model, whose weights follow from the recipe's seed, with the tokenizer of the data."""

    def has_its_tokens(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> bool:
        """Whether the tokens of the trained model in a folder are, number by number, those of this run."""

    def batches(self, recipe: Recipe, data: RunData, items_per_step: int) -> StagedBatches:
        """The batches of the run."""

    def trainer(self, data: RunData, *arguments: Any, **options: Any) -> ReformerTrainer:
        """A trainer, from the arguments of `ReformerTrainer`."""


class LanguageModelling:
    """A model that predicts the next token, or one that fills in hidden tokens, as the recipe says."""

    command = "reformer train"

    def open_data(self, recipe: Recipe) -> RunData:
        """Opens the sequences."""
        return RunData.open(recipe)

    def build_model(self, recipe: Recipe, data: RunData) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """A new `ReformerForCausalLM` or `ReformerForMaskedLM`."""
        from reformer.data.nucleotides import complement_ids
        from reformer.data.tokenizers import tokenizer_for
        from reformer.models.auto import ReformerForCausalLM, ReformerForMaskedLM

        tokenizer = tokenizer_for(data.train)
        kind = ReformerForCausalLM if recipe.is_decoder else ReformerForMaskedLM
        ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
        model = new_model(kind, recipe, vocab_size=len(tokenizer), **ids)
        if model.config.rc_equivariant:
            if data.train.tokenizer_name != "nucleotide":
                raise recipe.error("model.rc_equivariant", f"the data are {data.train.tokenizer_name} tokens")
            complement = complement_ids(len(tokenizer))
            model.strands.set(complement, complement)
        return model, tokenizer

    def has_its_tokens(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> bool:
        """Those of the tokenizer."""
        return has_vocabulary(folder, tokenizer)

    def batches(self, recipe: Recipe, data: RunData, items_per_step: int) -> StagedBatches:
        """Windows and records of the training data."""
        from reformer.training.batches import TrainingBatches
        from reformer.training.masking import Masking
        from reformer.training.mutated_copies import MutatedCopies

        training, share = recipe.training, recipe.data.mutated_copies
        return TrainingBatches(
            data.train,
            training.lengths,
            training.seed,
            items_per_step,
            other_strand=recipe.data.reverse_complement,
            masking=None if recipe.is_decoder else Masking(data.train.vocabulary, training.seed),
            mutated_copies=MutatedCopies(share, training.seed) if share else None,
        )

    def trainer(self, data: RunData, *arguments: Any, **options: Any) -> ReformerTrainer:
        """A trainer that evaluates in bits per token."""
        from reformer.training.trainer import ReformerTrainer

        return ReformerTrainer(*arguments, **options)


def train(
    recipe: Recipe, *, resume: bool = False, console: Console | None = None, task: Task | None = None
) -> RunResult:
    """Trains a model as a recipe says and leaves a run folder.

    The folder has `recipe.yaml` (resolved), `data.json` and `machine.json`, `start.json` where the model
    began with trained weights (which ones, and what it took of them), `metrics.jsonl`, `tensorboard/`,
    `checkpoints/`, and after the last step `model/` (the best by the mean over the evaluation sets, the last
    where there are none) and `report.html`. Nothing is made before the recipe, the data and the model have
    been found good. Under `torchrun`, every process calls this.

    Args:
        recipe: the recipe.
        resume: go on from the latest checkpoint of the run folder.
        console: where progress is shown; standard error by default.
        task: language modelling by default.

    Raises:
        UserError: one line, for whatever is wrong with the recipe, the data or the run folder, and for a
            loss that is not finite.
        OSError: when the run folder cannot be written.
    """
    console, task = console or Console(stderr=True), task or LanguageModelling()
    folder = Path(recipe.output_dir)
    check_run_folder(folder, recipe, resume)
    use_cpu = _resolve_device(recipe) == "cpu"
    data = task.open_data(recipe)
    if resume:
        check_same_data(folder, data)
    if recipe.data.reverse_complement and data.train.tokenizer_name != "nucleotide":
        raise recipe.error("data.reverse_complement", f"the data are {data.train.tokenizer_name} tokens")
    model, tokenizer = task.build_model(recipe, data)
    checkpoint = latest_checkpoint(folder / CHECKPOINTS)
    taken: Taken | None = None
    if recipe.training.start_from is not None and checkpoint is None:
        taken = take_weights(recipe, task, model, tokenizer)
    if recipe.training.lora_rank:
        _adapt(recipe, model, taken.new if taken else read_json(folder / START_FILE)["new"])
    if recipe.training.compile:
        _compile(recipe, model, use_cpu)

    from reformer.training.trainer import training_arguments

    arguments = training_arguments(recipe.training, folder / CHECKPOINTS, bool(data.validation), use_cpu)
    arguments._n_gpu = min(arguments.n_gpu, 1)  # several GPUs are used by several processes
    is_main = arguments.process_index == 0
    with ExitStack() as stack:
        if is_main:
            write_run_files(folder, recipe, data, taken)
        interruption = stack.enter_context(Interruption.watch())
        trainer = _trainer(task, recipe, data, model, tokenizer, arguments, console, stack, interruption)
        if is_main:
            _announce(console, recipe, data, model, arguments.device, checkpoint or taken)
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    step = trainer.state.global_step
    if trainer.interrupted:
        if is_main:
            _say(console, f"interrupted after step {step:,}; go on with:")
            _say(console, f"  {task.command} {folder / RECIPE_FILE} --resume")
        return RunResult(folder, step, True, None)
    report = _finish(folder, trainer, console) if is_main else None
    return RunResult(folder, step, False, report)


def _resolve_device(recipe: Recipe) -> str:
    try:
        return resolve_device(recipe.training.device)
    except UserError as error:
        raise recipe.error("training.device", str(error)) from error


def new_model(kind: type[Any], recipe: Recipe, **fields: Any) -> Any:
    """A new model of a class of ours.

    Args:
        kind: the class.
        recipe: has the seed, from which the weights follow, and fields of the configuration.
        fields: those that the data and the task determine.

    Raises:
        UserError: the fields do not make a model.
    """
    from transformers import set_seed
    from transformers.utils import logging

    from reformer.models.auto import ReformerConfig

    logging.disable_progress_bar()
    try:
        config = ReformerConfig(**recipe.model, is_decoder=recipe.is_decoder, **fields)
        set_seed(recipe.training.seed)
        return kind(config)
    except (ValueError, TypeError) as error:
        raise recipe.error("model", " ".join(str(error).split())) from error


def _trainer(
    task: Task,
    recipe: Recipe,
    data: RunData,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    arguments: Any,
    console: Console,
    stack: ExitStack,
    interruption: Interruption,
) -> ReformerTrainer:
    from transformers import set_seed

    training = recipe.training
    batches = task.batches(recipe, data, training.gradient_accumulation * arguments.world_size)
    recorders: list[Recorder] = []
    seconds = 0.0
    if arguments.process_index == 0:
        recorders, seconds = _recorders(Path(recipe.output_dir), batches, training.num_steps, console)
        for recorder in recorders:
            stack.callback(recorder.close)
    eval_length = training.eval_length or training.lengths[-1].length
    trainer = task.trainer(
        data,
        model,
        tokenizer,
        arguments,
        Path(recipe.output_dir) / CHECKPOINTS,
        batches,
        data.validation,
        eval_length=None if eval_length == "full" else eval_length,
        recorders=recorders,
        seconds_before=seconds,
        is_interrupted=interruption.requested,
    )
    set_seed(training.seed + arguments.process_index)  # processes draw their own dropout and rotations
    return trainer


def _adapt(recipe: Recipe, model: PreTrainedModel, new: Sequence[str]) -> None:
    """Freezes the model but for what is new in it, and gives it adapters, which follow from the seed."""
    from transformers import set_seed

    from reformer.training.lora import adapt

    set_seed(recipe.training.seed)
    try:
        adapt(model, recipe.training.lora_rank, names_of_new(new))
    except UserError as error:
        raise recipe.error("training.lora_rank", str(error)) from error


def _compile(recipe: Recipe, model: Any, use_cpu: bool) -> None:
    compiler = os.environ.get("CXX") or "g++"
    if use_cpu and shutil.which(compiler) is None:
        raise recipe.error("training.compile", f"needs a C++ compiler on a CPU; {compiler} was not found")
    try:
        model.reformer.encoder.compile_branches()
    except ValueError as error:
        raise recipe.error("training.compile", str(error)) from error


def _recorders(
    folder: Path, batches: StagedBatches, num_steps: int, console: Console
) -> tuple[list[Recorder], float]:
    """The metrics file, brought to the state of the latest checkpoint, and the displays; seconds so far."""
    steps = checkpoint_steps(folder / CHECKPOINTS)
    step = steps[-1] if steps else 0
    lines = drop_metrics_after(folder / METRICS_FILE, step)
    seconds = max((line["seconds"] for line in lines if "seconds" in line), default=0.0)
    recorders: list[Recorder] = [MetricsFile(folder / METRICS_FILE)]
    try:
        recorders.append(TensorBoardEvents(folder / TENSORBOARD, step + 1))
    except ImportError:
        _say(console, "no TensorBoard events: tensorboard is not installed")
    recorders.append(
        ProgressDisplay(console, num_steps, batches.num_tokens(num_steps), batches.num_tokens(step))
    )
    return recorders, seconds


def _announce(
    console: Console, recipe: Recipe, data: RunData, model: Any, device: Any, start: Path | Taken | None
) -> None:
    train = data.train
    for text in (
        f"run     {recipe.output_dir}",
        f"data    {len(train):,} {train.tokenizer_name} tokens in {len(train.records):,} record(s)",
        f"model   {sum(p.numel() for p in model.parameters()):,} parameters on {device}",
    ):
        _say(console, text)
    if recipe.training.bf16 and device.type == "cpu" and not _has_bfloat16_instructions():
        _say(
            console,
            "bf16    this processor has no bfloat16 instructions: float32 would be several times faster",
        )
    if start is not None:
        _say(console, f"{'starts ' if isinstance(start, Taken) else 'resumes'} {start}")
    if recipe.training.lora_rank:
        trained, all_weights = (
            sum(p.numel() for p in model.parameters() if p.requires_grad or not only_trained)
            for only_trained in (True, False)
        )
        _say(
            console,
            f"trains  {100 * trained / all_weights:.2g} % of the weights ({trained:,} of {all_weights:,})",
        )


def _has_bfloat16_instructions() -> bool:
    import torch

    return torch.cpu._is_avx512_bf16_supported() or not torch.cpu._is_avx2_supported()  # unknown off x86


def _finish(folder: Path, trainer: ReformerTrainer, console: Console) -> Path:
    """Saves the best model, or the last, and writes the report."""
    from reformer.training.report import write_report

    best = trainer.state.best_global_step
    trainer.remove_old_checkpoints()  # a kill may have come between the last one and this
    trainer.load_best_weights()
    with atomic_folder(folder / MODEL) as partial:
        trainer.save_model_folder(partial)
    report = write_report(folder)
    which = (
        f"step {best:,}, chosen by the evaluations: {trainer.state.best_metric:.4f} bits/{trainer.per}"
        if best
        else "the last step"
    )
    _say(console, f"model   {folder / MODEL} ({which})")
    _say(console, f"report  {report}")
    return report


def _say(console: Console, text: str) -> None:
    """Prints a line as it is: no colours, no markup, no wrapping."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)
