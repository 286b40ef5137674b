"""Division of a model into embeddings, layers, pooler and head, by the order in which a forward pass uses its modules.

A small copy of the model with random weights runs once, forward and backward. The modules that run before the first
layer are the embeddings, even if they are projections or norms. Parameters that belong to no layer, but are used by
layer 0 and other layers, such as shared position embeddings, count as embeddings, too. The modules that run after the
last layer are the pooler and the head. Modules that run between two layers ("beside" in the diagram) count as part of
the earlier layer. Parameters that do not influence the logits are called idle; they never train.

    time ─►  embeddings │ layer 0 │ beside 0 │ layer 1 │ … │ layer L-1 │ pooler, head

The attention module of a layer is the outermost module that executes all batched matrix products of the layer (queries
times keys, and attention weights times values), but does not contain all weight matrices of the layer.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import DoesNotFit
from alue_bench.contract.formats import excerpt
from alue_bench.contract.spec import digest_of

if TYPE_CHECKING:
    from torch import Tensor, nn

ALL_LAYERS_BELOW = 10_000_000
"""The largest number of parameters, without embeddings, of a model whose layers are all traced at full width. For a
larger model, a copy with fewer and narrower layers is traced."""
LAYERS, WIDTH = 4, 256
"""The number of layers of the small copy that is traced instead of a larger model, and the smallest hidden size to
which the copy may be narrowed."""
VOCABULARY = 512
"""The largest vocabulary size of the small copy of a model whose forward pass is traced."""
TEXT, TEXTS = 12, 2
"""The number of tokens per text, and of texts per batch, in the traced forward pass."""
SEED = 7
"""The seed of the random weights and texts of the traced forward pass."""

EMBEDDINGS, POOLER, HEAD, IDLE = "embeddings", "pooler", "head", "idle"


@dataclass(frozen=True)
class Members:
    """The names of the modules and parameters that make up one part of a model."""

    modules: tuple[str, ...] = ()
    """The modules that belong entirely to this part of the model."""
    parameters: tuple[str, ...] = ()
    """The parameters of this part that `modules` cannot cover, because their modules also contain parameters of another
    part."""


@dataclass(frozen=True)
class Anatomy:
    """The division of an architecture into parts: for each part, the names of its modules and parameters."""

    lists: tuple[str, ...]
    """The names of the module lists (`nn.ModuleList`) that contain the layers. Most architectures have one; XLM has
    separate lists for attention and feed-forward modules."""
    embeddings: Members
    beside: dict[int, Members]
    """The modules and parameters used between a layer and the next one, by the index of the earlier layer."""
    pooler: Members
    inputs_only: tuple[str, ...]
    """The embedding modules that return a vector for each token, `[batch, tokens, hidden]`. A forward pass that starts
    at a later layer skips them."""
    idle: tuple[str, ...]
    """The parameters that have no influence on the logits, or that transformers keeps fixed."""
    returns_tuple: bool
    """True if a layer returns a tuple whose first element is the hidden states."""
    attention: tuple[tuple[str, str], ...] | None
    """The attention modules of a layer, each as a pair: the name of the module list, and the name of the attention
    module within an entry of that list (empty if the entry itself is the attention module). The tuple is empty if the
    layers have no attention, as in FNet. The value is None if attention is not a separate module."""
    as_registered: bool
    """True if the order in which the encoder's modules are registered gives the same parts as the order in which they
    run, that is, if the modules registered before the layers are exactly the embeddings."""

    @property
    def restartable(self) -> bool:
        """True if a forward pass can start at any layer, because each layer is a single module."""
        return len(self.lists) == 1


_known_anatomies: dict[str, Anatomy | DoesNotFit] = {}


def anatomy_of(model: Any) -> Anatomy:
    """Return the division of a classification model into parts, found by running a small copy of it.

    The result is cached for each configuration.

    Args:
        model: A model that transformers built, possibly on the meta device, possibly with adapters. The model itself is
            not run.

    Raises:
        DoesNotFit: The model cannot be divided into embeddings, layers and head. The message says why.
    """
    if getattr(model.config, "is_encoder_decoder", False):
        raise DoesNotFit(
            f"{type(model).__name__} is an encoder with a decoder: which of the two stacks of layers a strategy "
            "freezes is not defined; take a model with one stack of layers"
        )
    key = digest_of([type(model).__name__, architecture_fields(model.config)])
    if key not in _known_anatomies:
        try:
            _known_anatomies[key] = _traced(small_copy(type(model), model.config))
        except DoesNotFit as error:
            _known_anatomies[key] = error
        except Exception as error:  # a third-party architecture may raise any error in a backward pass
            _known_anatomies[key] = _cannot_run(type(model), error)
    anatomy = _known_anatomies[key]
    if isinstance(anatomy, DoesNotFit):
        raise DoesNotFit(str(anatomy))
    return anatomy


def architecture_fields(config: Any) -> dict[str, Any]:
    """Return the fields of a configuration that determine the architecture.

    The result contains the value of each field as a string, by the field's name, in alphabetical order.
    """
    fields = {
        name: value
        for name, value in config.to_dict().items()
        if name not in ("id2label", "label2id", "_name_or_path", "transformers_version", "architectures", "dtype")
    }
    return {name: str(value) for name, value in sorted(fields.items())}


def small_copy(kind: type[Any], config: Any) -> Any:
    """Build a small model of an architecture with random weights, on the CPU, in fp32 and in eval mode.

    The copy of a large model has fewer and narrower layers and a smaller vocabulary, if transformers can build and run
    such a model. torch's global random state does not change.

    Args:
        kind: The model's class.
        config: The model's configuration. It is not changed.

    Raises:
        DoesNotFit: The model cannot be run with token ids and an attention mask as its only inputs.
    """
    import torch

    problem: Exception | None = None
    for candidate in _reduced(kind, config):
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(SEED)
                model = kind(candidate).float().eval()
            with torch.no_grad():
                copy.deepcopy(model)(**text_of(model))  # a copy: inputs can change a model, as in BigBird
            return model
        except Exception as error:  # a third-party architecture may raise any error on unexpected inputs
            problem = problem or error
    assert problem is not None
    raise _cannot_run(kind, problem) from problem


def _cannot_run(kind: type[Any], problem: Exception) -> DoesNotFit:
    cause = excerpt(next(iter(str(problem).splitlines()), ""), quote=False, max_length=200)
    return DoesNotFit(
        f"{kind.__name__} cannot be trained on texts alone, frozen parts in eval mode: "
        f"{type(problem).__name__}: {cause}"
    )


def text_of(model: Any, *, texts: int = TEXTS, tokens: int = TEXT) -> dict[str, Tensor]:
    """Return inputs for a model: random texts without padding, always the same for the same arguments.

    Args:
        model: The model.
        texts: The number of texts.
        tokens: The number of tokens per text.

    Returns:
        "input_ids" and "attention_mask", int64 `[texts, tokens]` each. No token is a special token.
    """
    import torch

    config = model.config
    generator = torch.Generator().manual_seed(SEED)
    words = int(getattr(config, "vocab_size", 0) or VOCABULARY)
    ids = torch.randint(min(5, words - 1), words, (texts, tokens), generator=generator)
    reserved = torch.tensor([number for _, number in _special(config)])
    ordinary = int((~torch.isin(torch.arange(words), reserved)).nonzero()[-1])
    ids[torch.isin(ids, reserved)] = ordinary
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _reduced(kind: type[Any], config: Any) -> Iterator[Any]:
    """Yield reduced configurations from which to build a small copy of a model, the smallest model first.

    Args:
        kind: The model's class.
        config: The configuration of the full-sized model.
    """
    import torch

    whole = _eager(config)
    with torch.device("meta"):
        outline = kind(copy.deepcopy(whole))
    embedded = {id(p) for m in outline.modules() if isinstance(m, torch.nn.Embedding) for p in m.parameters()}
    size = sum(p.numel() for p in outline.parameters() if id(p) not in embedded)
    small = _with_small_vocabulary(whole)
    if size > ALL_LAYERS_BELOW:
        yield _with_small_width(_with_few_layers(small))
        yield _with_few_layers(small)
    yield small
    yield whole


def _eager(config: Any) -> Any:
    """Return a copy of a configuration with transformers' "eager" attention, whose operations can be traced one by one.

    The copy also has a padding token id, and its cache of attention keys and values is turned off.
    """
    eager = copy.deepcopy(config)
    eager._attn_implementation = "eager"
    if hasattr(eager, "use_cache"):
        eager.use_cache = False
    if getattr(eager, "pad_token_id", None) is None:
        eager.pad_token_id = 0  # some decoders refuse batches without a padding id
    return eager


def _with_small_vocabulary(config: Any) -> Any:
    """Return a copy of a configuration with a small vocabulary, in which special tokens get new ids if needed."""
    small = copy.deepcopy(config)
    words = getattr(small, "vocab_size", None)
    if isinstance(words, int) and words > VOCABULARY:
        small.vocab_size = VOCABULARY
        for place, (name, number) in enumerate(_special(small)):
            if number >= VOCABULARY:
                setattr(small, name, VOCABULARY - 1 - place)
    return small


def _special(config: Any) -> list[tuple[str, int]]:
    """Return the special tokens in a configuration, as pairs of field name (such as "pad_token_id") and token id."""
    names = sorted(name for name in vars(config) if name.endswith("_token_id") or name == "pad_index")
    return [(name, value) for name in names if isinstance(value := getattr(config, name), int)]


def _with_few_layers(config: Any) -> Any:
    """Return a copy of a configuration with fewer layers, or the configuration itself if it does not allow this."""
    small = copy.deepcopy(config)
    try:
        shorten(small, range(min(LAYERS, small.num_hidden_layers)))
    except Exception:  # the number of layers is derived from other fields
        return config
    return small


def _with_small_width(config: Any) -> Any:
    """Return a copy of a configuration with hidden sizes and numbers of attention heads divided by a common factor.

    The factor is the largest one that divides all of them and leaves a hidden size of at least `WIDTH`; it may be 1.
    """
    small = copy.deepcopy(config)
    names = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    sizes = {name: value for name in names if isinstance(value := getattr(small, name, None), int)}
    hidden = sizes.get("hidden_size", WIDTH)
    divisors = (n for n in range(hidden // WIDTH, 1, -1) if all(value % n == 0 for value in sizes.values()))
    factor = next(divisors, 1)
    for name, value in sizes.items():
        setattr(small, name, value // factor)
    return small


def shorten(config: Any, kept: range | tuple[int, ...]) -> None:
    """Change a configuration in place so that the model has only some of its layers.

    Args:
        config: The configuration. Lists with one entry per layer are shortened too.
        kept: The indices of the layers to keep.

    Raises:
        NotImplementedError: The configuration's number of layers cannot be set.
    """
    before = config.num_hidden_layers
    config.num_hidden_layers = len(kept)
    for name, values in list(vars(config).items()):
        if isinstance(values, list) and len(values) == before and ("layer" in name or "window" in name):
            setattr(config, name, [values[index] for index in kept])


# Tracing ---------------------------------------------------------------------------------------------------------


@dataclass
class _ModuleUses:
    """The record of when a traced forward pass used each parameter and each module.

    Events are module calls, returns from modules, and tensor operations. They are numbered in the order in which they
    happen; a "moment" is the number of an event.
    """

    parameters: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    """The moments (event numbers) at which an operation read each parameter, by the parameter's `id()`."""
    batched: list[int] = field(default_factory=list)
    """The moments (event numbers) of the batched matrix products, with which attention combines tokens."""
    calls: defaultdict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    """The moments (event numbers) at which each call of a module began and ended, by the module's name."""
    outputs: dict[str, Any] = field(default_factory=dict)
    """The return value of each module's last call, by the module's name."""


def _traced(model: Any) -> Anatomy:
    """Run the small copy of a model, record how it uses its modules and parameters, and return the model's parts."""
    import torch

    with torch.no_grad():
        model(**text_of(model))  # some models change at their first forward pass
    uses, fixed, without_influence = _run(model)
    lists, spans = _layers(model, uses)
    assignment = _Assignment(model, uses, lists, spans, without_influence)
    embeddings, beside = assignment.members(EMBEDDINGS), {}
    for index in range(len(spans)):
        members = assignment.members(_layer(index))
        if members != Members():
            beside[index] = members
    if not embeddings.modules and not embeddings.parameters:
        raise DoesNotFit(f"{type(model).__name__} has no embeddings before its encoder layers")
    inputs_only = tuple(name for name in embeddings.modules if _is_states(uses.outputs.get(name)))
    idle = tuple(sorted({*fixed, *assignment.idle()}))
    return Anatomy(
        lists=lists,
        embeddings=embeddings,
        beside=beside,
        pooler=assignment.members(POOLER),
        inputs_only=inputs_only,
        idle=idle,
        returns_tuple=isinstance(uses.outputs.get(f"{lists[-1]}.0"), tuple),
        attention=_attention(model, uses, lists, spans),
        as_registered=len(lists) == 1
        and not (beside or idle or embeddings.parameters)
        and all(_is_child_of_encoder(model, name) for name in inputs_only)
        and _before_layers(model, lists[0])
        == {name for name in embeddings.modules if _is_child_of_encoder(model, name) and _has_parameters(model, name)},
    )


def _before_layers(model: Any, layers: str) -> set[str]:
    """Return the names of the encoder's child modules that have parameters and are registered before its layers.

    Args:
        model: The model.
        layers: The name of the module list that contains the layers.
    """
    before: set[str] = set()
    for name, module in getattr(model, model.base_model_prefix).named_children():
        whole = f"{model.base_model_prefix}.{name}"
        if f"{layers}.".startswith(f"{whole}."):
            break
        if any(True for _ in module.parameters()):
            before.add(whole)
    return before


def _is_child_of_encoder(model: Any, name: str) -> bool:
    """Return whether the module of this name is a direct child of the model's encoder."""
    return name.rpartition(".")[0] == str(model.base_model_prefix)


def _has_parameters(model: Any, name: str) -> bool:
    return any(True for _ in model.get_submodule(name).parameters())


def _run(model: Any) -> tuple[_ModuleUses, set[str], set[str]]:
    """Run a model forward and backward on random texts, and record how it uses its modules and parameters.

    Returns:
        The record of the forward pass; the names of the parameters that transformers keeps fixed (`requires_grad` is
        False); the names of the other parameters that got no gradient.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    uses, clock = _ModuleUses(), iter(range(10**9))
    known = {id(parameter) for parameter in model.parameters()}

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            moment = next(clock)
            if func._overloadpacket is torch.ops.aten.bmm:
                uses.batched.append(moment)
            for leaf in tree_leaves((args, kwargs)):
                if id(leaf) in known:
                    uses.parameters[id(leaf)].append(moment)
            return func(*args, **(kwargs or {}))

    def watched(name: str, forward: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            began = next(clock)
            output = uses.outputs[name] = forward(*args, **options)
            uses.calls[name].append((began, next(clock)))
            return output

        return call

    # Hooks cannot be used, because some architectures call `forward` of their layers directly.
    for name, module in model.named_modules():
        if name:
            module.forward = watched(name, module.forward)
    try:
        with torch.enable_grad(), Watch():  # type: ignore[no-untyped-call]
            logits = model(**text_of(model)).logits
    finally:
        for name, module in model.named_modules():
            if name:
                del module.forward
    named = dict(model.named_parameters())
    learnt = {name: parameter for name, parameter in named.items() if parameter.requires_grad}
    logits.sum().backward()
    without_gradient = {name for name, parameter in learnt.items() if parameter.grad is None}
    return uses, named.keys() - learnt.keys(), without_gradient


def _layers(model: Any, uses: _ModuleUses) -> tuple[tuple[str, ...], list[tuple[int, int]]]:
    """Find the layers of a model in the record of its forward pass.

    The layers are the entries of a module list with `num_hidden_layers` entries that run once each, in order. If there
    are several such lists, the one with the most parameters is taken. If the entries of another list run in turn with
    its entries, as in XLM, entry i of both lists together is layer i.

    Returns:
        The names of the module lists that contain the layers, in the order in which they run; the moments (event
        numbers, see `_ModuleUses`) at which each layer began and ended.

    Raises:
        DoesNotFit: No module list contains layers, or there are two separate stacks of layers.
    """
    from torch import nn

    kind, count = type(model).__name__, int(getattr(model.config, "num_hidden_layers", 0))
    lists = {
        name: [f"{name}.{index}" for index in range(count)]
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
    }
    called = {
        name: [uses.calls[entry] for entry in entries]
        for name, entries in lists.items()
        if all(len(uses.calls[entry]) == 1 for entry in entries)
    }
    outer = {
        name: [calls[0] for calls in calls_of_entries]
        for name, calls_of_entries in called.items()
        if not any(name.startswith(f"{other}.") for other in called)
    }
    ordered = {name: spans for name, spans in outer.items() if spans == sorted(spans)}
    if not ordered:
        raise DoesNotFit(f"{kind} has no list of its encoder layers{_why_no_layers(model, uses, lists, count)}")
    sizes = {name: sum(p.numel() for p in model.get_submodule(name).parameters()) for name in ordered}
    largest = max(ordered, key=lambda name: sizes[name])
    together = [name for name in ordered if name == largest or _interleaved(ordered[largest], ordered[name])]
    rival = next((name for name in ordered if name not in together and 2 * sizes[name] > sizes[largest]), None)
    if rival is not None:
        raise DoesNotFit(
            f"{kind} has two stacks of layers, {largest} and {rival}: which of them a strategy freezes is not "
            "defined; take a model with one stack of layers"
        )
    names = sorted(together, key=lambda name: ordered[name][0])
    begins = [ordered[names[0]][index][0] for index in range(count)]
    ends = [max(ordered[name][index][1] for name in names) for index in range(count)]
    return tuple(names), list(zip(begins, ends, strict=True))


def _interleaved(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> bool:
    """Return whether two module lists run in turn, so that entry i of both lists together is layer i of the model.

    The condition is that entry i of both lists ends before entry i + 1 of either list begins.

    Args:
        one: The moments (event numbers, see `_ModuleUses`) at which each entry of the first list began and ended.
        other: The same for the entries of the second list.
    """
    pairs = list(zip(one, other, strict=True))
    return len(pairs) > 1 and all(
        max(ended for _, ended in pair) < min(began for began, _ in following) for pair, following in pairwise(pairs)
    )


def _attention(
    model: Any, uses: _ModuleUses, lists: tuple[str, ...], spans: list[tuple[int, int]]
) -> tuple[tuple[str, str], ...] | None:
    """Return the attention modules of a layer; see `Anatomy.attention`.

    Args:
        model: The model.
        uses: The record of its forward pass.
        lists: The names of the module lists that contain the layers.
        spans: The moments (event numbers, see `_ModuleUses`) at which each layer began and ended.
    """
    chosen: dict[tuple[str, str], None] = {}
    for index, (began, ended) in enumerate(spans):
        products = [moment for moment in uses.batched if began < moment < ended]
        if not products:
            continue
        entries = {name: model.get_submodule(f"{name}.{index}") for name in lists}
        matrices = {id(p) for entry in entries.values() for p in entry.parameters() if p.ndim > 1}
        candidates = [
            (name, own)
            for name, entry in entries.items()
            for own, module in entry.named_modules()
            if not matrices <= {id(p) for p in module.parameters()}
            and any(
                start < products[0] and products[-1] < end
                for start, end in uses.calls[f"{name}.{index}.{own}".rstrip(".")]
            )
        ]
        if not candidates:
            return None
        chosen[min(candidates, key=lambda pair: pair[1].count(".") + bool(pair[1]))] = None
    return tuple(chosen)


def _why_no_layers(model: Any, uses: _ModuleUses, lists: dict[str, list[str]], count: int) -> str:
    """Return the reason why no list of layers was found in a model, as the end of an error message.

    Args:
        model: The model.
        uses: The record of its forward pass.
        lists: The names of the entries of each module list that has `count` entries, by the list's name.
        count: The number of layers in the configuration.
    """
    from torch import nn

    for name, entries in lists.items():
        if any(len(uses.calls[entry]) > 1 for entry in entries):
            return f": those in {name} run several times for one text, so that several layers share their weights"
    shared = [name for name, calls in uses.calls.items() if len(calls) == count > 1 and name]
    if shared:
        least = min(shared, key=lambda name: name.count("."))
        return f": {least} runs once for each of them, so that all layers share its weights"
    others = [f"{name} ({len(m)})" for name, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) > 1]
    return "; alue-bench can freeze layers only of encoders built as embeddings, layers and head" + (
        f", and this one has the lists {', '.join(others[:4])}" if others else ""
    )


def _layer(index: int) -> str:
    return f"layer {index}"


class _Assignment:
    """An assignment of each module and parameter of a traced model to a part of the model."""

    def __init__(
        self,
        model: Any,
        uses: _ModuleUses,
        lists: tuple[str, ...],
        spans: list[tuple[int, int]],
        without_influence: set[str],
    ) -> None:
        self._model = model
        self._uses = uses
        self._spans = spans
        self._inside = {f"{name}.{index}": index for name in lists for index in range(len(spans))}
        self._without = without_influence
        base = str(model.base_model_prefix)
        self._pooler = f"{base}.pooler" if hasattr(getattr(model, base, None), "pooler") else None
        self._parameters = {name: self._part_of_parameter(name, p) for name, p in model.named_parameters()}

    def members(self, part: str) -> Members:
        """Return the modules that belong entirely to one part of the model, and the part's other parameters.

        Submodules of a returned module are not returned separately.
        """
        modules: list[str] = []
        loose: list[str] = []
        self._collect("", self._model, part, modules, loose)
        return Members(tuple(modules), tuple(loose))

    def idle(self) -> set[str]:
        """Return the names of the parameters that do not influence the logits."""
        return {name for name, part in self._parameters.items() if part == IDLE}

    def _collect(self, name: str, module: nn.Module, part: str, modules: list[str], loose: list[str]) -> None:
        """Collect the names of the submodules and parameters of a module that belong to one part of the model.

        Args:
            name: The name of the module to search.
            module: The module.
            part: The part of the model, such as `EMBEDDINGS`.
            modules: The list to which modules are added that belong entirely to the part.
            loose: The list to which parameters of the part are added if their module belongs to several parts.
        """
        if name in self._inside:
            return
        parts = self._parts(name, module)
        if parts == {part}:
            modules.append(name)
            return
        if part not in parts:
            return
        prefix = f"{name}." if name else ""
        loose += [
            prefix + own
            for own, _ in module.named_parameters(recurse=False)
            if self._parameters.get(prefix + own) == part
        ]
        for own, child in module.named_children():
            self._collect(prefix + own, child, part, modules, loose)

    def _parts(self, name: str, module: nn.Module) -> set[str]:
        """Return the names of all parts of the model to which submodules and parameters of a module belong.

        Parameters that do not influence the logits are ignored.
        """
        prefix = f"{name}." if name else ""
        parts = {
            self._parameters[prefix + own] for own, _ in module.named_parameters() if prefix + own in self._parameters
        }
        for own, part in module.named_modules():
            inner = f"{prefix}{own}".rstrip(".")
            if self._layer_around(inner) is not None:
                parts.add("layers")
            elif not any(True for _ in part.parameters()) and not any(True for _ in part.children()):
                called = {self._part_at(began) for began, _ in self._uses.calls[inner]}
                parts |= {POOLER if of_call == HEAD and self._in_pooler(inner) else of_call for of_call in called}
        return parts - {IDLE}

    def _in_pooler(self, name: str) -> bool:
        return self._pooler is not None and f"{name}.".startswith(f"{self._pooler}.")

    def _part_of_parameter(self, name: str, parameter: Tensor) -> str:
        """Return the part of the model that a parameter belongs to.

        Raises:
            DoesNotFit: The parameter belongs to a layer, but is used outside that layer, too; or it belongs to no layer
                and is used by several layers, but not by the lowest.
        """
        index = self._layer_around(name)
        moments = self._uses.parameters.get(id(parameter), [])
        if index is not None:
            return self._checked_layer(name, index, moments)
        if not moments or name in self._without:
            return IDLE
        part = self._part_at(moments[0])
        if part == HEAD and self._in_pooler(name):
            return POOLER
        if part.startswith("layer ") and any(self._part_at(moment) != part for moment in moments):
            if part == _layer(0):  # used in layer 0 and in others, such as relative positions: an input of the layers
                return EMBEDDINGS
            raise DoesNotFit(
                f"{type(self._model).__name__} uses {name} in several of its layers, but not in the lowest: a layer "
                "cannot be frozen without the others"
            )
        return part

    def _checked_layer(self, name: str, index: int, moments: list[int]) -> str:
        """Return the name of the layer that contains a parameter, after checking that nothing else uses the parameter.

        Args:
            name: The name of the parameter.
            index: The index of the layer that contains the parameter.
            moments: The moments (event numbers, see `_ModuleUses`) at which an operation read the parameter.

        Raises:
            DoesNotFit: A module outside the layer uses the parameter, too.
        """
        if any(self._part_at(moment) != _layer(index) for moment in moments):
            raise DoesNotFit(
                f"{type(self._model).__name__} uses {name} of layer {index} in other layers too: it cannot be frozen "
                "without them"
            )
        return _layer(index)

    def _layer_around(self, name: str) -> int | None:
        """Return the index of the layer that contains the named module or parameter; None if no layer does."""
        parts = name.split(".")
        return next(
            (self._inside[key] for end in range(1, len(parts) + 1) if (key := ".".join(parts[:end])) in self._inside),
            None,
        )

    def _part_at(self, moment: int) -> str:
        """Return the name of the model's part that was being computed at a moment (event number, see `_ModuleUses`).

        The time between two layers counts as part of the earlier layer.
        """
        if moment < self._spans[0][0]:
            return EMBEDDINGS
        if moment > self._spans[-1][1]:
            return HEAD
        return _layer(sum(began <= moment for began, _ in self._spans) - 1)


def _is_states(output: Any) -> bool:
    """Return whether an output looks like hidden states: a floating-point tensor `[TEXTS, TEXT, hidden]`."""
    import torch

    return (
        isinstance(output, torch.Tensor)
        and output.is_floating_point()
        and output.ndim == 3
        and output.shape[:2] == (TEXTS, TEXT)
    )
