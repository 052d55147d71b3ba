"""Native models of transformers from a folder: every weight from a file, no code from anywhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from schemas.errors import InputError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from transformers.image_processing_backends import PilBackend

    Model = TypeVar("Model", bound=PreTrainedModel)
    Processor = TypeVar("Processor", bound=PilBackend)

_MOST_NAMED = 3


def load_model(kind: "type[Model]", folder: Path, dtype: str, device: str) -> "Model":
    """The model of a folder, for inference. Raises InputError for what cannot be read, and for a
    weight that is missing or of another size: none is made up.
    """
    import torch

    try:
        with _quiet():
            loaded: Any = kind.from_pretrained(  # a pair, which its annotation does not know
                folder,
                dtype=getattr(torch, dtype),
                output_loading_info=True,
                local_files_only=True,
                trust_remote_code=False,
                weights_only=True,
            )
    except Exception as error:  # a file cut short, of another kind, with code in it
        raise _unreadable(folder, error) from error
    model: Model = loaded[0]
    refuse_missing(folder, sorted(loaded[1]["missing_keys"]))
    model.eval().requires_grad_(False)
    placed: Model = loaded[0].to(device)
    return placed


@contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars and reports: what is wrong is said once, as an error."""
    import logging as levels

    from transformers.utils import logging

    verbosity, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(levels.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bars:
            logging.enable_progress_bar()


def refuse_missing(folder: Path, missing: list[str]) -> None:
    """Raises InputError that names weights which no file holds."""
    if missing:
        rest = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
        raise InputError(
            f"{folder} lacks weights of the model: {', '.join(missing[:_MOST_NAMED])}{rest}; fetch "
            "or export the model again"
        )


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer of a folder. Raises InputError."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever is wrong with its files
        raise _unreadable(folder, error) from error


def load_image_processor(kind: "type[Processor]", folder: Path, **settings: Any) -> "Processor":
    """The image processor of a folder, by its class without torchvision, with other settings than
    the folder has. Raises InputError.
    """
    try:
        return kind.from_pretrained(folder, local_files_only=True, **settings)
    except Exception as error:  # whatever is wrong with its files
        raise _unreadable(folder, error) from error


def read_state_dict(path: Path) -> "dict[str, torch.Tensor]":
    """The tensors of one file by name, also where a training script put them under `state_dict`.

    Raises InputError.
    """
    import torch
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a file cut short, of another kind, with code in it
        raise _unreadable(path, error) from error
    tensors = content.get("state_dict", content) if isinstance(content, dict) else {}
    return {
        str(name).removeprefix("module."): tensor
        for name, tensor in tensors.items()
        if isinstance(tensor, torch.Tensor)
    }


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = str(error).strip().partition("\n")[0]
    return InputError(
        f"{path} cannot be read as a model ({type(error).__name__}: {reason:.200}); fetch or "
        "export the model again"
    )
