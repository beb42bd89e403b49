"""Mutation testing: how many small faults, put into a module one at a time, its tests notice.

    pip install -c constraints.txt -e '.[dev]'
    python -m benchmarks.mutants --modules signflip ledger --seed 1 --sample 40 --out results.json

mutmut gives the faults; its own runner passes over decorated functions. This process imports the heavy libraries, and nothing
of the project. For each mutant it writes the changed file into a copy of the checkout and forks. The child runs the tests that
run the changed lines, then all of the module's, up to the first failure. A mutant is caught if a test fails, if the import
fails, or if the run takes five times the processor time that it takes without it (or as long again in waiting). The clean
copy must pass, before and after, and a file that only raises must not.

The sample is the first of all mutants by a hash of seed, function, operator, and the lines before and after: code that moves
to another file keeps its mutants. Left out are docstrings, annotations, names for types, imports, ``raise``, warnings,
``__all__``, ``if TYPE_CHECKING``, web addresses, and the arguments in ``QUIET``. A string has one mutant; an argument is left
out of a call, not made ``None``.

Results are written after each mutant, and a second call goes on from there. A report is put beside them.
"""

import argparse
import ast
import contextlib
import gc
import hashlib
import importlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import coverage
import libcst as cst
from libcst import matchers as m
from libcst.metadata import MetadataWrapper
from mutmut.mutation.mutators import mutation_operators, operator_arg_removal

# module: (its files, its tests, fastest and most specific first: ``space`` is test_space.py anywhere under tests)
TABLE = {
    "signflip": ("analysis/**/signflip.py", "analysis_signflip analysis_verdicts analysis_accuracy analysis_images "
                 "level_claims planning analysis_scale error_rates sequential"),
    "verdicts": ("analysis/**/verdicts.py", "analysis_verdicts level_claims analysis_pooled two_studies analysis_claims "
                 "looks planted"),
    "judgement": ("analysis/**/judgement.py", "analysis_verdicts level_claims analysis_claims analysis_design registration "
                  "analysis_pooled analysis_budgets analysis_effects two_studies looks planted "
                  "analysis_report"),
    "ledger": ("study/**/ledger.py", "whole ledger registration collect spending two_studies joint"),
    "search": ("study/**/search.py", "search space agenda joint importance"),
    "agenda": ("study/**/agenda.py", "agenda agenda_looks levels execution_step joint looks measurement"),
    "seeding": ("study/**/seeding.py", "seeding training_steps networks_dropout agenda data_stream"),
    "merges": ("study/**/merges/*.py", "merge merge_placebos merge_placement models merge_behaviour "
               "networks_blocks networks_matched"),
    "forms": ("study/**/attention/forms.py", "attention_forms attention_gates attention_gates_measured models "
              "attention_parity networks_published"),
    "path": ("study/**/smoothness/**/path.py", "smoothness_path smoothness smoothness_shared smoothness_bad_input "
             "smoothness_near"),
    "input_jacobian": ("study/**/input_jacobian.py", "smoothness_lipschitz smoothness_parts smoothness smoothness_shared "
                       "smoothness_near measuring"),
    "clamped": ("study/**/clamped.py", "attention_importance attention_shapley attention_gates_measured "
                "smoothness_shared attention_ceiling"),
    "fused": ("study/**/training/**/fused.py", "training_schedule training_stacked training_fused training_options"),
    "atomic": ("study/**/atomic.py", "whole workspace registration sharing attempts trial"),
}  # fmt: skip
HEAVY = "pytest numpy scipy.stats torch torchvision optuna pyarrow.parquet statsmodels.api matplotlib.pyplot mlflow"


def _one_of(names: str) -> Any:
    return m.OneOf(*map(m.Name, names.split()))


# what a registry's entry says in words; what guards against slips alone; the line a warning points to
QUIET = m.Arg(keyword=_one_of("formula source strict frozen kw_only stacklevel"))
ADDRESS = m.SimpleString(m.MatchRegex("[\"']https?:.*"))
LEFT_OUT = (
    m.Annotation() | m.Import() | m.ImportFrom() | m.Raise() | m.Expr(m.SimpleString() | m.ConcatenatedString()) | QUIET
    | m.If(m.Name("TYPE_CHECKING")) | m.Assign([m.AssignTarget(m.Name("__all__"))]) | m.Assign(value=ADDRESS) | ADDRESS
    | m.Call(m.Attribute(m.Name("warnings")))
)  # fmt: skip
TYPES = m.Assign(value=m.Subscript() | m.Call(m.Name("TypeVar")))
# calls whose own arguments are not taken away: that is an error of type, or changes nothing
PLAIN = m.Call(_one_of("cast isinstance len dataclass") | m.Attribute(attr=m.Name("register")))


class Finder(cst.CSTVisitor):
    """Collects function, operator, node and what takes its place."""

    def __init__(self) -> None:
        self.where: list[str] = []
        self.found: list[tuple[str, str, cst.CSTNode, cst.CSTNode]] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        """Whether to look into ``node``."""
        if isinstance(node, cst.ClassDef | cst.FunctionDef):
            self.where.append(node.name.value)
        if m.matches(node, LEFT_OUT) or (not self.where and m.matches(node, TYPES)):
            return False
        for kind, operator in mutation_operators:
            if isinstance(node, kind) and not m.matches(node, PLAIN):
                for new in list(operator(node))[: 1 if isinstance(node, cst.SimpleString) else None]:
                    if operator is not operator_arg_removal or _is_worth(new, node):
                        self.found.append((".".join(self.where), operator.__name__, node, new))
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        """Out of a function."""
        if isinstance(original_node, cst.ClassDef | cst.FunctionDef):
            self.where.pop()


def _is_worth(new: Any, call: Any) -> bool:
    """An argument gone for good, and not a quiet one: ``None`` in its place is an error of type nearly always."""
    gone = [argument for argument in call.args if argument not in new.args]
    return len(new.args) < len(call.args) and not any(m.matches(argument, QUIET) for argument in gone)


def _num_same(lines: list[str], others: list[str]) -> int:
    pairs = zip(lines, others, strict=False)
    return next((i for i, (line, other) in enumerate(pairs) if line != other), min(len(lines), len(others)))


def mutants_of(file: Path, root: Path, seed: int) -> list[dict[str, Any]]:
    """All mutants of ``file``; ``code`` is the whole file's, ``key`` the hash they are sampled by."""
    tree, finder, seen = MetadataWrapper(cst.parse_module(file.read_text())).module, Finder(), Counter[Any]()
    tree.visit(finder)
    before, mutants = tree.code.splitlines(), {tree.code: dict[str, Any]()}
    for function, operator, node, new in finder.found:
        code = tree.deep_replace(node, new).code  # type: ignore[union-attr]
        after = code.splitlines()
        start = _num_same(before, after)
        same_end = _num_same(before[start:][::-1], after[start:][::-1])
        old, text = (" ".join(map(str.strip, lines[start : len(lines) - same_end])) for lines in (before, after))
        with contextlib.suppress(SyntaxError):
            compile(code, file, "exec")
            if code not in mutants:
                same = {"function": function, "operator": operator, "old": old, "new": text}
                told = (seed, *same.values())
                key = hashlib.sha256(repr((*told, seen[told])).encode()).hexdigest()[:16]
                place = {"key": key, "file": str(file.relative_to(root)), "line": start + 1}
                mutants[code] = place | same | {"code": code}
                seen[told] += 1
    return [mutant for mutant in mutants.values() if mutant]


class Following:
    """A plug-in of pytest that notes which test runs which line of ``files``."""

    def __init__(self, files: list[Path], out: Path) -> None:
        self.coverage, self.out = coverage.Coverage(data_file=None, include=[str(file) for file in files]), out
        self.coverage.start()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """From here on lines are this test's."""
        self.coverage.switch_context(nodeid)

    def pytest_sessionfinish(self) -> None:
        """Write file -> line -> tests."""
        self.coverage.stop()
        data = self.coverage.get_data()
        self.out.write_text(json.dumps({file: data.contexts_by_lineno(file) for file in data.measured_files()}))


def chosen(mutant: dict[str, Any], file: Path, lines: dict[str, list[str]]) -> list[str] | None:
    """The tests that run what is changed; ``None`` for all: what is run at import is every test's."""
    last = mutant["line"]
    held = (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.stmt))
    # a decorator's line is in no statement
    first = max((node.lineno for node in held if node.lineno <= last <= (node.end_lineno or 0)), default=last)
    tests = [test for line in range(first, last + 1) for test in lines.get(str(line), [])]
    return None if not tests or "" in tests else list(dict.fromkeys(tests))


def run_tests(
    root: Path, tests: list[str], limit: float = 600, *, keep_bytecode: bool = False, follow: list[Path] | None = None
) -> dict[str, Any]:
    """In a child: ``outcome`` (survived, caught, timed out), ``by`` which test, ``seconds``, and those of the processor."""
    begun, log = time.monotonic(), root.parent / "log"
    if (child := os.fork()) == 0:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (2**34, 2**34))
        resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit) + 5))
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        os.dup2(1, 2)
        os.chdir(root)
        sys.dont_write_bytecode = not keep_bytecode
        options = [
            "-x",
            "-q",
            "-n0",
            "-rfE",
            "--tb=line",
            "-pno:cacheprovider",
            f"--basetemp={root.parent}/tmp",
        ]
        plugins = [Following(follow, root.parent / "lines")] if follow else []
        code = int(importlib.import_module("pytest").main([*options, *tests], plugins))
        sys.stdout.flush()
        own = [str(sys.modules[name].__file__) for name in ("study", "analysis") if name in sys.modules]
        os._exit(code if all(path.startswith(str(root)) for path in own) else 99)
    ended, status, used = 0, signal.SIGXCPU, None
    while not ended and time.monotonic() - begun < 10 * limit:
        time.sleep(0.02)
        ended, status, used = os.wait4(child, os.WNOHANG)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if not ended:
        _, _, used = os.wait4(child, 0)
        status = signal.SIGXCPU
    code, lines = os.waitstatus_to_exitcode(status), log.read_text(errors="replace").splitlines()
    if code in (5, 99):
        raise SystemExit("no test ran" if code == 5 else "the code of another checkout was imported")
    outcome = {0: "survived", -signal.SIGXCPU: "timed out"}.get(code, "caught")
    by = next((line.split(" - ")[0] for line in lines if line.startswith(("FAILED ", "ERROR "))), f"exit code {code}")
    seconds = {"seconds": round(time.monotonic() - begun, 2), "cpu_seconds": round(used.ru_utime + used.ru_stime, 2)}
    return {"outcome": outcome, "by": by if outcome == "caught" else "", **seconds}


def measure(name: str, root: Path, held: dict[str, Any], seed: int, sample: int, save: Any) -> None:
    """Run the sample of one module; ``held`` is what was found before, and is added to."""
    pattern, tested = TABLE[name]
    files = sorted(root.glob(pattern))
    tests = [str(file) for test in tested.split() for file in (root / "tests").rglob(f"test_{test}.py")]
    if not files or len(tests) != len(tested.split()) or (len(files) > 1 and "*" not in Path(pattern).name):
        raise SystemExit(f"{name}: {len(files)} files, {len(tests)} tests for {tested}")
    mutants = sorted(
        (mutant for file in files for mutant in mutants_of(file, root, seed)), key=lambda mutant: mutant["key"]
    )
    print(name, len(mutants), "mutants", flush=True)
    found = held.setdefault("mutants", [])
    if held.get("clean_after") and {mutant["key"] for mutant in mutants[:sample]} <= {other["key"] for other in found}:
        return
    clean = run_tests(root, tests, keep_bytecode=True)
    for file in files:  # its bytecode would be taken for that of a mutant of the same size and second
        for stale in file.parent.glob(f"__pycache__/{file.stem}.*"):
            stale.unlink()
    if clean["outcome"] != "survived":
        raise SystemExit(f"{name}: the clean copy fails: {clean}")
    limit = max(10.0, 5 * clean["cpu_seconds"])
    held |= {"all": len(mutants), "clean_cpu_seconds": clean["cpu_seconds"]}
    run_tests(root, tests, follow=files)
    lines = json.loads((root.parent / "lines").read_text())
    deadly = {"key": "deadly", "file": str(files[-1].relative_to(root)), "code": "raise RuntimeError"}
    for mutant in [deadly, *mutants[:sample]]:
        if any(mutant["key"] == other["key"] for other in found):
            continue
        file = root / mutant["file"]
        text = file.read_text()
        some = None if mutant is deadly else chosen(mutant, file, lines.get(str(file), {}))
        file.write_text(mutant["code"])
        result = run_tests(root, some, limit) if some else {"outcome": "survived"}
        if result["outcome"] == "survived":  # by what those tests see; others may see it from another process
            result = run_tests(root, tests, limit)
        file.write_text(text)
        if mutant is not deadly:
            found.append({key: value for key, value in mutant.items() if key != "code"} | result)
            print(" ", result["outcome"], result["seconds"], mutant["function"], mutant["new"], flush=True)
            save()
        elif result["outcome"] == "survived":
            raise SystemExit(f"{name}: {file} can raise, and no test notices")
    held["clean_after"] = run_tests(root, tests)["outcome"] == "survived"
    save()


def report(results: dict[str, Any]) -> str:
    """As Markdown: a row a module, then every survivor."""
    lines = ["| module | all mutants | sampled | caught | timed out | survived | share caught |", "|" + "---|" * 7]
    survivors = []
    for name, held in results.items():
        found = held.get("mutants", [])
        count = Counter(mutant["outcome"] for mutant in found)
        caught = count["caught"] + count["timed out"]
        cells = (name, held["all"], len(found), caught, count["timed out"], count["survived"])
        lines.append(f"| {' | '.join(map(str, cells))} | {caught / max(1, len(found)):.0%} |")
        for mutant in (mutant for mutant in found if mutant["outcome"] == "survived"):
            survivors.append(f"\n{mutant['file']}:{mutant['line']} `{mutant['function']}` ({mutant['operator']})\n")
            survivors.append(f"```diff\n- {mutant['old']}\n+ {mutant['new']}\n```")
    return "\n".join([*lines, "", "## Survivors", *survivors, ""])


def main() -> None:
    """Measure the modules asked for."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--checkout", type=Path, default=Path())
    parser.add_argument("--modules", nargs="+", choices=TABLE, default=list(TABLE))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sample", type=int, default=40)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    results = json.loads(asked.out.read_text()) if asked.out.exists() else {}

    def save() -> None:
        for path, text in ((asked.out, json.dumps(results, indent=1)), (asked.out.with_suffix(".md"), report(results))):
            path.with_suffix(".part").write_text(text)
            path.with_suffix(".part").replace(path)

    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch).resolve() / "copy"
        leave = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info")
        shutil.copytree(asked.checkout, root, ignore=leave)
        os.environ |= {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        sys.path.insert(0, str(root))
        # or an editable install would stand in for a module that is not in the copy
        sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in getattr(finder, "__module__", "")]
        for name in HEAVY.split():
            importlib.import_module(name)
        sys.modules["torch"].set_num_threads(1)
        gc.freeze()
        for name in asked.modules:
            measure(name, root, results.setdefault(name, {}), asked.seed, asked.sample, save)


if __name__ == "__main__":
    main()
