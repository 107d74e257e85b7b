"""Code that changes, and code that workers cannot import."""

import importlib
import importlib.abc
import importlib.util
import os
import signal
import subprocess
import sys
import textwrap
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import eagleray
from eagleray import _modules
from eagleray._dask_versions import LEGACY_DATAFRAMES
from eagleray.dask import ray_dask_get
from eagleray.exceptions import WorkerImportError
from tests.tasks import inc

TASKS = 8


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory in `sys.path`, whose modules are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        module = sys.modules[name]
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def write(path: Path, number: int) -> None:
    """A module that says `number`. Each of another length, so that no cache of byte code is taken for it."""
    path.write_text(
        f"# {'x' * number}\nNUMBER = {number}\ndef say(*_): return NUMBER\nclass C:\n    number = {number}\n"
    )
    importlib.invalidate_caches()


def said(module: Any) -> set[int]:
    graph = {("k", i): (module.say, i) for i in range(TASKS)}
    return set(ray_dask_get(graph, list(graph)))


class TestChanged:
    def test_reloaded(self, directory: Path, fresh: None) -> None:
        write(directory / "changing_a.py", 1)
        module = importlib.import_module("changing_a")
        eagleray.init(num_cpus=2)
        for number in (1, 2, 3):
            write(directory / "changing_a.py", number)
            importlib.reload(module)
            for _ in range(2):
                assert said(module) == {number}

    def test_imported_again(self, directory: Path, fresh: None) -> None:
        eagleray.init(num_cpus=2)
        for number in (1, 2, 3):
            write(directory / "changing_b.py", number)
            sys.modules.pop("changing_b", None)
            assert said(importlib.import_module("changing_b")) == {number}

    def test_a_module_that_another_uses(self, directory: Path, fresh: None) -> None:
        write(directory / "changing_c.py", 1)
        (directory / "using_c.py").write_text("import changing_c\ndef say(*_): return changing_c.say()\n")
        using = importlib.import_module("using_c")
        eagleray.init(num_cpus=2)
        assert said(using) == {1}
        write(directory / "changing_c.py", 2)
        importlib.reload(sys.modules["changing_c"])
        assert said(using) == {2}

    def test_results_outlive_the_replacement(self, directory: Path, fresh: None) -> None:
        write(directory / "changing_d.py", 1)
        module = importlib.import_module("changing_d")
        eagleray.init(num_cpus=2)
        (ref,) = ray_dask_get({"k": (module.say,)}, ["k"], ray_persist=True)
        assert eagleray.get(ref) == 1
        write(directory / "changing_d.py", 2)
        importlib.reload(module)
        assert ray_dask_get({"k": (inc, ref), "n": (module.say,)}, ["k", "n"]) == [2, 2]

    def test_nothing_is_replaced_without_a_reason(self, fresh: None) -> None:
        eagleray.init(num_cpus=1)
        ray_dask_get({"k": (inc, 1)}, "k")
        importlib.import_module("colorsys")
        workers = [worker["pid"] for worker in eagleray._engine.native.workers() if worker["state"] != "ended"]
        for _ in range(3):
            ray_dask_get({"k": (inc, 1)}, "k")
        now = [worker["pid"] for worker in eagleray._engine.native.workers() if worker["state"] != "ended"]
        assert set(now) & set(workers) or len(workers) == 1


class TestLooking:
    """Before each compute the driver looks at its modules. That changes none, and fails for none."""

    def test_lazy_modules_stay_unloaded(self, directory: Path, session: None) -> None:
        write(directory / "lazy_e.py", 1)
        spec = importlib.util.find_spec("lazy_e")
        assert spec
        assert spec.loader
        loader = importlib.util.LazyLoader(spec.loader)
        spec.loader = loader
        module = importlib.util.module_from_spec(spec)
        sys.modules["lazy_e"] = module
        loader.exec_module(module)
        assert ray_dask_get({"k": (inc, 1)}, "k") == 2
        assert "NUMBER" not in object.__getattribute__(module, "__dict__")

    def test_what_takes_the_place_of_a_module(
        self, directory: Path, session: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Proxy:
            def __getattr__(self, name: str) -> Any:
                raise ImportError(f"{name} cannot be had")

        write(directory / "replaced_e.py", 1)
        importlib.import_module("replaced_e")
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "proxy_e", Proxy())
            assert ray_dask_get({"k": (inc, 1)}, "k") == 2
            patch.setitem(sys.modules, "replaced_e", Proxy())
            assert ray_dask_get({"k": (inc, 1)}, "k") == 2

    @pytest.mark.parametrize("name", ["email.of_an_extension", "_cython_9_9", "cython_runtime"])
    def test_modules_that_extensions_make_are_not_sent_by_value(
        self, session: None, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        import email  # noqa: F401

        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        monkeypatch.setattr(_modules, "_met", _modules._met - {name})
        assert ray_dask_get({"k": (inc, 1)}, "k") == 2
        assert name not in _modules._by_value

    def test_a_child_of_the_driver_looks_while_a_thread_of_its_parent_does(self, fresh: None) -> None:
        with _modules._guard:
            pid = _fork_beside(_modules.refresh)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _fork_beside(work: Callable[[], object]) -> int:
    """Forks in another thread than the caller's; the child ends with 0 if the work does."""
    pids: list[int] = []

    def fork() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of 3.12: there are threads
            pid = os.fork()
        if pid == 0:
            code = 1
            try:
                signal.alarm(60)
                work()
                code = 0
            finally:
                os._exit(code)
        pids.append(pid)

    thread = threading.Thread(target=fork)
    thread.start()
    thread.join()
    return pids[0]


class TestMain:
    def test_functions_and_globals_of_main(self) -> None:
        """As in a notebook: cells are run one after the other in one `__main__`."""
        program = """
        import eagleray
        from eagleray.dask import ray_dask_get
        eagleray.init(num_cpus=2)
        FACTOR = 2
        items = [1]
        class Thing:
            def value(self): return "old"
        def scaled(x): return FACTOR * x
        def seen(*_): return list(items), Thing().value(), helper()
        def helper(): return "old"
        def both():
            graph = {("s", i): (scaled, i) for i in range(4)}
            return ray_dask_get(graph, list(graph)), ray_dask_get({"a": (seen,)}, "a")
        assert both() == ([0, 2, 4, 6], ([1], "old", "old"))
        FACTOR = 3
        items.append(2)
        assert both() == ([0, 3, 6, 9], ([1, 2], "old", "old"))
        def helper(): return "new"
        class Thing:
            def value(self): return "new"
        assert both()[1] == ([1, 2], "new", "new")
        def scaled(x): return -x
        assert both()[0] == [0, -1, -2, -3]
        """
        subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)

    @pytest.mark.skipif(LEGACY_DATAFRAMES, reason="with this Dask they do not find them without eagleray either")
    def test_destructors_find_its_globals_when_it_ends(self, tmp_path: Path) -> None:
        program = """
        import os
        from eagleray.dask import ray_dask_get
        class Thing:
            def __del__(self): os.write(1, b"freed")
        thing = Thing()
        def one(): return 1
        assert ray_dask_get({"a": (one,)}, "a", num_workers=1) == 1
        """
        (tmp_path / "program.py").write_text(textwrap.dedent(program))
        done = subprocess.run([sys.executable, tmp_path / "program.py"], check=True, capture_output=True)
        assert done.stdout == b"freed"


class TestNotImportable:
    def test_made_at_run_time(self, session: None, monkeypatch: pytest.MonkeyPatch) -> None:
        module: Any = types.ModuleType("made_here")
        exec("N = 5\ndef say(*_): return N\nclass C:\n    def get(self): return N", module.__dict__)
        monkeypatch.setitem(sys.modules, "made_here", module)
        assert said(module) == {5}
        assert ray_dask_get({"c": (module.C,), "k": (module.C.get, "c")}, "k") == 5
        made = ray_dask_get({"c": (module.C,)}, "c")
        assert type(made) is module.C
        module.N = 6
        assert said(module) == {6}

    @pytest.mark.parametrize("argument", [False, True])
    def test_known_to_the_drivers_import_hooks_only(
        self, session: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, argument: bool
    ) -> None:
        name = f"hooked_{argument}"
        path = tmp_path / f"{name}.py"
        write(path, 4)

        class Finder(importlib.abc.MetaPathFinder):
            def find_spec(self, wanted: str, *_: Any) -> Any:
                return importlib.util.spec_from_file_location(name, path) if wanted == name else None

        monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder()])
        monkeypatch.setattr(sys, "modules", sys.modules)
        module = importlib.import_module(name)
        try:
            for _ in range(2):
                if argument:
                    assert ray_dask_get({"k": (lambda c: c.number, module.C())}, "k") == 4
                else:
                    assert said(module) == {4}
        finally:
            del sys.modules[name]

    def test_an_error_names_module_key_and_path(self, session: None, monkeypatch: pytest.MonkeyPatch) -> None:
        """A class that says it is of a module, which nobody has."""

        class Foreign:
            def __reduce__(self) -> Any:
                return _import, ("nowhere_to_be_found",)

        with pytest.raises(WorkerImportError, match=r"Task 'k' .*'nowhere_to_be_found'.*sys.path") as caught:
            ray_dask_get({"k": (id, Foreign())}, "k")
        assert isinstance(caught.value, ImportError)
        assert caught.value.search_path

    def test_errors_of_the_task_itself_are_its_own(self, session: None, tmp_path: Path) -> None:
        path = tmp_path / "runs"

        def imports(path: str) -> None:
            with open(path, "a") as file:
                file.write("ran\n")
            import nowhere_to_be_found  # type: ignore[import-not-found]  # noqa: F401

        with pytest.raises(ModuleNotFoundError, match="nowhere_to_be_found") as caught:
            ray_dask_get({"k": (imports, str(path))}, "k")
        assert not isinstance(caught.value, WorkerImportError)
        assert path.read_text() == "ran\n"


def _import(name: str) -> Any:
    return importlib.import_module(name)
