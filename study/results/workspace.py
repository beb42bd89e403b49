"""A study's folder ``results/<study>/``: its one driver's lock, the specification frozen as it began, its registered claims.

A later run may add levels, blocks, trials or statistics. It is refused, naming the value, when it changes what finished
replicates rest on. Claims are registered in ``claims.json`` before the first confirmed replicate. A later run with other
claims leaves the first ones there, and adds its own with the number of replicates known by then.

Source: https://doi.org/10.1073/pnas.1708274114
"""

import contextlib
import errno
import json
import os
import re
import shlex
import socket
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from search_spaces import Spec, SpecError, UnknownPreset, check_spec, load_spec, presets, with_changes
from search_spaces.registered import changes, digest, registered
from search_spaces.strict import quoted
from study.atomic import read_json, write_json
from study.errors import UserError, nearest
from study.results.files import CLAIMS, HOLDER, LEDGER, LOCK, SPECIFICATION, TABLES_FOLDER
from study.results.lease import Guard, held_by_another, hold_lease, living_holder
from study.schema import Holder, Registration

# Changing these changes no finished result: placement, wording, what is measured, compared or kept. A change of claims is
# let through and reported from then on (``register``).
_FREE = {
    "title", "demonstration", "measure", "contrasts", "control", "claims", "level_claims", "published", "alpha", "sequential",
    "checkpoints", "plugins", "doses", "resources.cpus", "resources.gpus",
    # whether cells have gone, or have other ranges or floors, is checked by itself
    "factors", "ranges", "accuracy_floor",
}  # fmt: skip
# What a study is judged by that was begun before its specification held its floors.
_UNSTATED_FLOORS = {
    "digits": 0.9, "mnist": 0.9, "fashion_mnist": 0.6, "cifar10": 0.5, "cifar10_jpeg": 0.2, "cifar100": 0.2, "svhn": 0.5,
    "caltech101": 0.25, "caltech101_authors": 0.25, "imagenet": 0.05, "tiny_imagenet": 0.1, "fake": 0.3,
}  # fmt: skip
# No result rests on a value of these that cannot be used.
_MENDABLE = ("sampler", "scheduler", "resources")
_GROWING = ("blocks", "budget.search_trials", "budget.shortened")


def storage_folder(storage: Path, option: str = "--storage") -> Path:
    """What ``option`` names as a folder: ``~`` is a home. Raises ``UserError`` for an address, such as ``s3://bucket``."""
    # as a path, s3://bucket would be a folder called "s3:"
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(storage), flags=re.IGNORECASE):
        raise UserError(f"{option} {storage}: a folder is needed, on a filesystem that all hosts share (NFS)")
    try:
        return storage.expanduser()
    except RuntimeError:
        raise UserError(f"{option} {storage}: there is no such home") from None


def check_folder(folder: Path) -> bool:
    """Whether ``folder`` is there, and can be read. Raises ``UserError`` where it cannot, or where it is no folder."""
    try:
        if not stat.S_ISDIR(folder.stat().st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(folder, os.R_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UserError(f"results folder {str(folder)[:200]}: {error.strerror}") from None
    return True


@dataclass(frozen=True)
class Workspace:
    """The folder of one study. Raises ``UserError`` for an address, such as ``s3://bucket``."""

    root: Path

    def __post_init__(self) -> None:
        storage_folder(self.root.parent)

    def check(self, *, reading: bool) -> None:
        """Raise ``UserError`` where the folder cannot be; if ``reading``, also where the one of all studies is not there."""
        storage = self.root.parent
        if not check_folder(storage) and reading:
            missing = next(path for path in (storage, *storage.parents) if path.parent.exists())
            hint = nearest(missing.name, [path.name for path in missing.parent.iterdir() if path.is_dir()] or [""])
            raise UserError(
                f"--storage {storage}: there is no folder {missing}{hint if 'mean' in hint else ''}; it holds no results; "
                f"first: fmm-study run {self.root.name}"
            )
        check_folder(self.root)

    @property
    def argument(self) -> str:
        """What a command line takes for this study."""
        return shlex.quote(str(self.root))

    @property
    def ledger(self) -> Path:
        """The ledger's segments."""
        return self.root / LEDGER

    @property
    def tables(self) -> Path:
        """Exported tables."""
        return self.root / TABLES_FOLDER

    def holder(self) -> dict[str, Any] | None:
        """The driver at work: ``pid``, ``host``, ``since``; ``None`` when there is none. Writes nothing."""
        return living_holder(self.root)

    @contextlib.contextmanager
    def locked(self, tell: Callable[[str], None] = lambda _: None) -> Iterator[Guard]:
        """Be the only driver of this study: by a lock, and by a lease where locks do not lock (``study.results.lease``).

        Yields what raises ``UserError`` once another driver has taken over. ``tell`` gets a line where another host's driver
        has to be watched. Raises ``UserError`` naming the holder, or why the folder is unwritable.
        """
        holder, lock = self.root / HOLDER, FileLock(self.root / LOCK, timeout=0)
        with contextlib.ExitStack() as stack:
            try:
                self.root.mkdir(parents=True, exist_ok=True)
                # of a file system that has no locks the lease alone is asked
                with contextlib.suppress(NotImplementedError):
                    stack.enter_context(lock)
                guard = hold_lease(stack, self.root, tell)
            except Timeout:
                raise held_by_another(self.root) from None
            except OSError as error:
                raise UserError(f"results folder {self.root}: {error.strerror or error}") from None
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            write_json(holder, {"pid": os.getpid(), "host": socket.gethostname(), "since": since})
            stack.callback(_remove_own, holder)
            yield guard

    def as_begun(self, spec: Spec) -> Spec:
        """``spec`` as it was recorded where it does not say: its floors, and the order of hyperparameters and cells, which
        decides what is suggested.

        Raises ``UserError`` where what was recorded cannot be used.
        """
        path = self.root / SPECIFICATION
        held = read_json(path, dict[str, Any])
        if held is None:
            return spec
        begun = _mended(held, json.loads(spec.model_dump_json()), path)
        given = {name: spec.floor_of(name) for name in spec.datasets}
        floors = {name: begun.floor_of(name) if floor is None else floor for name, floor in given.items()}
        changes: dict[str, Any] = {"accuracy_floor": {k: floor for k, floor in floors.items() if floor is not None}}
        if set(begun.nuisance) == set(spec.nuisance):
            changes["nuisance"] = {name: spec.nuisance[name] for name in begun.nuisance}
        if spec.joint and sorted(map(json.dumps, _cells(begun))) == sorted(map(json.dumps, _cells(spec))):
            changes["factors"] = begun.factors
        return spec.model_copy(update=changes)

    def freeze(self, spec: Spec, usable: Callable[[Spec], None] = lambda _: None) -> Spec | None:
        """Record ``spec``; what was recorded before. Raises ``UserError`` where ``spec`` does more than extend that.

        What was recorded and cannot be used gives way to what ``spec`` has there: a value that may change and is not valid,
        and a sampler or scheduler for which ``usable`` raises ``UserError``.
        """
        path = self.root / SPECIFICATION
        now = json.loads(spec.model_dump_json())
        held = read_json(path, dict[str, Any])
        before = _mended(held, now, path) if held is not None else None
        if before:
            try:
                if (before.sampler, before.scheduler) != (spec.sampler, spec.scheduler):
                    usable(before)
            except UserError:
                before = before.model_copy(update={"sampler": spec.sampler, "scheduler": spec.scheduler})
            refuse_change(json.loads(before.model_dump_json()), now, where=str(self.root))
        write_json(path, now)
        return before

    def specification(self) -> Spec | None:
        """What the study was run with; ``None`` where nothing was. Raises ``UserError`` or ``SpecError``, naming the file."""
        path = self.root / SPECIFICATION
        held = read_json(path, dict[str, Any])
        return None if held is None else _checked(held, str(path))


def opened(name: str, overrides: list[str], storage: Path, *, reading: bool = False) -> tuple[Spec, Workspace]:
    """The specification that a command names, and its study's folder.

    ``name``: a preset or a YAML file, whose study lies under ``storage``; or the folder of a study that was run, with the
    specification in it, or that folder's name under ``storage``. ``reading``: the folder of all studies must be there. Raises
    ``SpecError`` or ``UserError``.
    """
    spec, workspace = named(name, overrides, storage)
    workspace.check(reading=reading)
    return workspace.as_begun(spec), workspace


def named(name: str, overrides: list[str], storage: Path) -> tuple[Spec, Workspace]:
    """``opened`` without a look at whether the folder can be used."""
    root = None if name in presets() else study_folder(name, storage)
    if root is None:
        try:
            spec = load_spec(name, overrides)
        except UnknownPreset:
            known = [*presets(), *studies(storage)]
            raise UserError(
                f"unknown preset {quoted(name)}{nearest(name, known)}; nor is it a .yaml file, or the folder of a "
                f"study, here or under {storage}"
            ) from None
        return spec, Workspace(storage / spec.name)
    path = root / SPECIFICATION
    spec = with_changes(_checked(read_json(path, dict[str, Any]) or {}, str(path)), overrides, name)
    return spec, Workspace(root)


def study_folder(name: str, storage: Path) -> Path | None:
    """The folder of a study that was run: ``name`` itself, or ``name`` under ``storage``; ``None`` where neither is one."""
    with contextlib.suppress(OSError, ValueError):  # a name that is too long, or holds a null
        for root in (Path(name), storage / name):
            if (root / SPECIFICATION).is_file() or (root / LEDGER).is_dir():
                return root
    return None


def studies(storage: Path) -> list[str]:
    """Names of the studies under ``storage``."""
    return sorted(path.parent.name for path in storage.glob(f"*/{SPECIFICATION}"))


def _checked(held: dict[str, Any], origin: str) -> Spec:
    """The recorded specification, with its floors where it was begun before they stood there. Raises ``SpecError``."""
    spec = check_spec(held, origin)
    if "accuracy_floor" in held:
        return spec
    floors = {name: _UNSTATED_FLOORS[name] for name in spec.datasets if name in _UNSTATED_FLOORS}
    return spec.model_copy(update={"accuracy_floor": floors})


def _mended(held: dict[str, Any], now: dict[str, Any], path: Path) -> Spec:
    """The recorded specification; what may change and is not valid there is as in ``now``. Raises ``UserError``."""
    while True:
        try:
            # through the model: a key that is new since then has its default
            return _checked(held, f"{path} holds what cannot be used")
        except SpecError as error:
            key = error.key
            if key not in {*_FREE, *_MENDABLE} or held[key] == now[key]:
                raise UserError(str(error)) from None
            held = held | {key: now[key]}


def refuse_change(before: dict[str, Any], now: dict[str, Any], where: str) -> None:
    """Raise ``UserError`` naming the first value by which ``now`` is another study than ``before``."""
    old, new = _comparable(before), _comparable(now)
    for key in dict.fromkeys([*old, *new]):
        if key not in _GROWING and old.get(key) != new.get(key):
            raise UserError(
                f"{where} holds results of another specification: {key} was {quoted(old.get(key))}, now "
                f"{quoted(new.get(key))}; "
                "use another name or --storage, or put the value back"
            )
    for share in old["budget.shortened"]:
        if share not in new["budget.shortened"]:
            raise UserError(
                f"{where} holds trainings of a share {share:g} of the epochs; put it back: budget.shortened"
            )
    for key in ("blocks", "budget.search_trials"):
        if new[key] < old[key]:
            raise UserError(f"{where} holds results with {key} = {old[key]!r}; it can grow, not shrink to {new[key]!r}")
    earlier, later = (Spec.model_validate(each) for each in (before, now))
    for name, floor in earlier.accuracy_floor.items():
        if later.floor_of(name) != floor:
            raise UserError(
                f"{where} holds networks judged by accuracy_floor.{name} = {floor:g}, not {later.floor_of(name)}; use another "
                "name or --storage, or put it back"
            )
    old_cells, new_cells = _cells(earlier), _cells(later)
    for cell in earlier.cells() if earlier.ranges or later.ranges else ():
        ranges = [spec.in_cell({**spec.fixed, **cell}).nuisance for spec in (earlier, later)]
        for name in ranges[0]:
            if ranges[0][name] != ranges[1][name]:
                raise UserError(
                    f"{where} holds results of cell {quoted(cell)} with {name} in {quoted(ranges[0][name])}, now "
                    f"{quoted(ranges[1][name])}; put back: ranges"
                )
    if new.get("joint.confirm") and old_cells != new_cells:
        raise UserError(f"{where} holds results of a joint search over other cells; use another name or --storage")
    gone = [cell for cell in old_cells if cell not in new_cells]
    if gone:
        added = [cell for cell in new_cells if cell not in old_cells]
        raise UserError(
            f"{where} holds results of cell {gone[0]!r}, which the specification no longer has{_nearest(gone[0], added)}"
        )


def _nearest(cell: dict[str, Any], cells: list[dict[str, Any]]) -> str:
    """What tells ``cell`` from the one of ``cells`` that has most of its levels."""
    if not cells:
        return ""
    near = min(cells, key=lambda other: sum(other.get(name) != level for name, level in cell.items()))
    names = [name for name in {**cell, **near} if cell.get(name) != near.get(name)]
    return "; nearest to it: " + ", ".join(f"{name} was {cell.get(name)!r}, now {near.get(name)!r}" for name in names)


def _comparable(spec: dict[str, Any]) -> dict[str, Any]:
    # what is measured while a network trains cannot be had afterwards
    flat: dict[str, Any] = {"measure.during": spec["measure"]["during"]}
    for key, value in spec.items():
        if key not in _FREE:
            flat |= {f"{key}.{name}": item for name, item in value.items()} if isinstance(value, dict) else {key: value}
    return {key: value for key, value in flat.items() if key not in _FREE}


def _cells(spec: Spec) -> list[dict[str, Any]]:
    return [dict(sorted(cell.items())) for cell in spec.cells()]


def _remove_own(holder: Path) -> None:
    """Remove ``driver.json``, unless it is already another's."""
    with contextlib.suppress(UserError, OSError):
        if (read_json(holder, Holder) or {}).get("pid") == os.getpid():
            holder.unlink(missing_ok=True)


def read_registration(root: Path) -> dict[str, Any] | None:
    """The fields of ``claims.json``, among them ``confirm_began`` (a time or ``None``); ``None`` without such a file.

    Raises ``UserError`` where it is damaged or was edited.
    """
    # a margin without end was let through once
    held: dict[str, Any] | None = read_json(root / CLAIMS, Registration, finite=False)
    if held is not None:
        refuse_edited(held, str(root / CLAIMS))
    return held


def refuse_edited(held: Mapping[str, Any], where: str) -> None:
    """Raise ``UserError`` where what is registered has another digest than it had: nothing else says what it was."""
    if digest(held["registered"]) != held["digest"]:
        raise UserError(
            f"{where}: what is registered has another digest than {held['digest'][:80]!r}: it was edited; put it back from "
            "a copy"
        )


def register(root: Path, spec: Spec, before: Spec | None, num_confirmed: int) -> None:
    """Fix the claims of ``spec``, or, where ``num_confirmed`` is above 0, add them as a later change.

    ``before`` is the specification of the last run, whose claims bind a study that has replicates and no ``claims.json``.
    """
    held, now = read_registration(root), registered(spec)
    if held is None or not num_confirmed:
        old = registered(before) if before and num_confirmed else now
        held = {"digest": digest(old), "registered": old, "since": _now(), "confirm_began": None, "later": []}
    known = {held["digest"], *(entry["digest"] for entry in held["later"])}
    if digest(now) not in known:
        departs = [change.text for change in changes(held["registered"], now)]
        entry = {"digest": digest(now), "since": _now(), "num_confirmed": num_confirmed, "changes": departs}
        held["later"] += [entry] if departs else []
    write_json(root / CLAIMS, held, finite=False)


def note_confirm(root: Path) -> None:
    """Note, once, the time of the first confirmed replicate."""
    held = read_registration(root)
    if held is not None and held["confirm_began"] is None:
        write_json(root / CLAIMS, held | {"confirm_began": _now()}, finite=False)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
