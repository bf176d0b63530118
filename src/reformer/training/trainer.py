"""transformers' Trainer with our batches, our checkpoints and our evaluation; its step loop is unchanged."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from reformer.errors import UserError
from reformer.training.atomic import atomic_folder, partial_path
from reformer.training.batches import StagedBatches, unwrap_batch
from reformer.training.checkpoints import (
    check_trainer_state,
    load_optimizer,
    load_rng_state,
    load_scheduler,
    load_weights,
    save_adapters,
    save_optimizer,
    save_rng_state,
    save_scheduler,
)
from reformer.training.evaluation import BitsReport, Sums, evaluate_bits
from reformer.training.lora import merged_state
from reformer.training.metrics import NATS_PER_BIT, Recorder, peak_memory_bytes
from reformer.training.run_folder import (
    TRAINER_STATE_FILE,
    checkpoint_path,
    latest_checkpoint,
    remove_old_checkpoints,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from reformer.data.tokens import TokenArray
    from reformer.training.recipe import TrainingSection

_SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}


def training_arguments(
    training: TrainingSection, checkpoints: Path, evaluates: bool, use_cpu: bool
) -> TrainingArguments:
    """The Trainer's arguments for a recipe's training section.

    Args:
        training: the section.
        checkpoints: the folder of the checkpoints.
        evaluates: whether there are held-out data.
        use_cpu: train on the CPU even where there is a GPU.
    """
    return TrainingArguments(
        output_dir=str(checkpoints),
        seed=training.seed,
        max_steps=training.num_steps,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=training.gradient_accumulation,
        learning_rate=training.learning_rate,
        lr_scheduler_type=_SCHEDULES[training.schedule],
        warmup_steps=training.warmup_steps,
        weight_decay=training.weight_decay,
        max_grad_norm=training.clip_grad_norm,
        bf16=training.bf16,
        use_cpu=use_cpu,
        eval_strategy="steps" if evaluates else "no",
        eval_steps=training.eval_every,
        save_strategy="steps",
        save_steps=training.save_every,
        save_total_limit=training.keep_checkpoints,
        metric_for_best_model="bits_per_token" if evaluates else None,
        greater_is_better=False if evaluates else None,
        logging_steps=1,
        logging_nan_inf_filter=False,
        log_level="error",
        report_to="none",
        disable_tqdm=True,
        average_tokens_across_devices=False,
        ddp_find_unused_parameters=False,
        remove_unused_columns=False,
        train_sampling_strategy="sequential",
    )


class _StepsOfThisRun(TrainerCallback):
    """Lets the intervals of the arguments hold, where the Trainer would go by those of the checkpoint."""

    def on_train_begin(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        state.compute_steps(args, state.max_steps)


class ReformerTrainer(Trainer):
    """Trains a causal model on `StagedBatches` and evaluates it in bits per token.

    The loss of a step is the mean over its forward passes and processes, each the mean over its tokens. After
    every step, and every evaluation, a line goes to the recorders (see `reformer.training.metrics`). A
    checkpoint is written every `save_steps`, and where the mean of the evaluation sets is the best so far.

    Args:
        model: a `ReformerForCausalLM`.
        tokenizer: saved with the model.
        arguments: those of `training_arguments`.
        checkpoints: the folder of the checkpoints.
        batches: the training data.
        eval_arrays: held-out data by name.
        eval_length: tokens per evaluation window; None for whole records.
        recorders: take the lines of metrics; on the main process only.
        seconds_before: seconds of training before this process began.
        is_interrupted: asked after every step; once it says yes, the step is saved and training ends.
    """

    loss_is_scaled_for_ga = False
    per = "token"
    """What is predicted: loss and bits are those of one."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        arguments: TrainingArguments,
        checkpoints: Path,
        batches: StagedBatches,
        eval_arrays: Mapping[str, TokenArray],
        *,
        eval_length: int | None = None,
        recorders: Sequence[Recorder] = (),
        seconds_before: float = 0.0,
        is_interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(
            model=model,
            args=arguments,
            data_collator=unwrap_batch,
            train_dataset=batches,
            eval_dataset=dict(eval_arrays) or None,
            processing_class=tokenizer,
            callbacks=[_StepsOfThisRun()],
        )
        self.remove_callback(PrinterCallback)
        self.model_accepts_loss_kwargs = False  # the loss is a mean, whatever else forward accepts
        self.interrupted = False
        self._model = model
        self._tokenizer = tokenizer
        self._checkpoints = checkpoints
        self._batches = batches
        self._eval_arrays = eval_arrays
        self._eval_length = eval_length
        self._recorders = recorders
        self._is_interrupted = is_interrupted
        self._train_start = time.perf_counter() - seconds_before
        self._step_start = time.perf_counter()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Records a step. The Trainer calls this after every step, before it evaluates and saves."""
        if "loss" not in logs:
            return
        step = self.state.global_step
        for name in ("loss", "grad_norm"):
            if not math.isfinite(logs[name]):
                raise UserError(f"step {step}: {name} is {logs[name]}; {self._last_checkpoint()}")
        now = time.perf_counter()
        tokens = self._batches.num_tokens(step)
        line = {
            "step": step,
            **self._per(),
            "loss": logs["loss"],
            "bits_per_token": logs["loss"] / NATS_PER_BIT,
            "learning_rate": logs["learning_rate"],
            "grad_norm": logs["grad_norm"],
            "length": self._batches.length(step),
            "tokens": tokens,
            "tokens_per_second": (tokens - self._batches.num_tokens(step - 1)) / (now - self._step_start),
            "peak_memory_bytes": peak_memory_bytes(),
            "seconds": now - self._train_start,
        }
        for recorder in self._recorders:
            recorder.record_step(line)
        self.control = self.callback_handler.on_log(self.args, self.state, self.control, logs)
        self._step_start = time.perf_counter()
        if self._any_process_interrupted() and step < self.state.max_steps:
            self.interrupted = True
            self.control.should_training_stop = self.control.should_save = True
            self.control.should_evaluate = False

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluates on every held-out set and records the results.

        Returns:
            `eval_NAME_bits_per_token` of every set, and `eval_bits_per_token`, their mean.
        """
        metrics = {}
        for name in self._eval_arrays:
            with self.accelerator.autocast():
                found = self.evaluate_set(name)
            metrics[f"eval_{name}_bits_per_token"] = found["bits_per_token"]
            line = {"step": self.state.global_step, "eval": name, **self._per(), **found}
            for recorder in self._recorders:
                recorder.record_evaluation(line)
        metrics["eval_bits_per_token"] = sum(metrics.values()) / len(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        self._step_start = time.perf_counter()
        return metrics

    def _per(self) -> dict[str, str]:
        return {} if self.per == "token" else {"per": self.per}

    def evaluate_set(self, name: str) -> dict[str, Any]:
        """What is recorded of one held-out set: `bits_per_token`, and what else there is to say."""
        report = evaluate_bits(
            self._model,
            self._eval_arrays[name],
            self._eval_length,
            process=(self.args.process_index, self.args.world_size),
            reduce=self._sum_over_processes,
        )
        return _in_numbers(report)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """A forward and a backward pass, as the Trainer does them."""
        try:
            return super().training_step(*args, **kwargs)
        except FloatingPointError as error:
            raise UserError(
                f"step {self.state.global_step + 1}: {error}; {self._last_checkpoint()}"
            ) from error

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: the Trainer's formula knows nothing of this attention."""
        return 0

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        is_best = bool(super()._determine_best_metric(metrics, trial))
        if is_best:
            self.control.should_save = True
        return is_best

    def _any_process_interrupted(self) -> bool:
        interrupted = self._is_interrupted()
        if self.args.world_size == 1:
            return interrupted
        flag = torch.tensor(float(interrupted), device=self.args.device)
        return bool(self.accelerator.reduce(flag, "sum").item() > 0)

    def _sum_over_processes(self, sums: Sums) -> Sums:
        if self.args.world_size == 1:
            return sums
        tensor = torch.from_numpy(sums).to(self.args.device)
        return self.accelerator.reduce(tensor, "sum").cpu().numpy()  # type: ignore[no-any-return]

    def _last_checkpoint(self) -> str:
        latest = latest_checkpoint(self._checkpoints)
        return f"the last whole checkpoint is {latest}" if latest else "there is no checkpoint yet"

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        is_main = self.is_world_process_zero()
        path = checkpoint_path(self._checkpoints, self.state.global_step)
        writing: AbstractContextManager[Path] = (
            atomic_folder(path) if is_main else nullcontext(partial_path(path))
        )
        try:
            with writing as partial:
                self.accelerator.wait_for_everyone()  # the folder exists
                save_rng_state(partial, self.args.process_index)
                if is_main:
                    self._save_state(partial)
                self.accelerator.wait_for_everyone()  # every process has written its part
        except (OSError, SafetensorError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"{path}: cannot be written: {reason}; {self._last_checkpoint()}") from error
        if is_main:
            self.remove_old_checkpoints()
        self.accelerator.wait_for_everyone()
        self._step_start = time.perf_counter()

    def save_model_folder(self, folder: Path) -> None:
        """Writes the model, adapters merged, and its tokenizer into a folder that `from_pretrained` reads."""
        self._model.save_pretrained(folder, state_dict=merged_state(self._model))
        self._tokenizer.save_pretrained(folder)

    def remove_old_checkpoints(self) -> None:
        """Removes all checkpoints but the latest, as many as are to be kept, and the best."""
        keep = self.args.save_total_limit
        assert keep is not None
        remove_old_checkpoints(self._checkpoints, keep, self.state.best_global_step)

    def load_best_weights(self) -> None:
        """Puts the weights of the best checkpoint into the model, where there were evaluations."""
        if self.state.best_global_step is not None:
            load_weights(self._model, checkpoint_path(self._checkpoints, self.state.best_global_step))

    def _save_state(self, folder: Path) -> None:
        """Writes what is the same on all processes."""
        for recorder in self._recorders:
            recorder.flush()
        assert self.optimizer is not None
        assert self.lr_scheduler is not None
        self.save_model_folder(folder)
        save_adapters(self._model, folder)
        save_optimizer(self.optimizer, folder)
        save_scheduler(self.lr_scheduler, folder)
        self.state.save_to_json(str(folder / TRAINER_STATE_FILE))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        check_trainer_state(Path(resume_from_checkpoint))
        load_weights(self._model, Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            assert self.optimizer is not None
            assert self.lr_scheduler is not None
            load_optimizer(self.optimizer, Path(checkpoint))
            load_scheduler(self.lr_scheduler, Path(checkpoint))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            load_rng_state(Path(checkpoint), self.args.process_index)


def _in_numbers(report: BitsReport) -> dict[str, Any]:
    found = {"bits_per_token": report.total.bits_per_token}
    if report.total.bits_per_base is not None:
        found["bits_per_base"] = report.total.bits_per_base
    positions = [[bound, bits.bits_per_token] for bound, bits in report.by_position.items()]
    return {**found, "bits_by_position": positions}
