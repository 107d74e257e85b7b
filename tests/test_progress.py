"""The progress bar of Dask-on-Ray."""

import re
import sys
import threading
from pathlib import Path
from typing import Any

import dask.array as da
import pytest

from eagleray.dask import ProgressBarCallback, RayDaskCallback, callbacks, ray_dask_get, ray_dask_get_sync, scheduler
from eagleray.dask.execution import Ran
from eagleray.dask.progress import summary
from eagleray.dask.scheduler import render_progress_bar
from tests import tasks
from tests.conftest import until

pytestmark = pytest.mark.usefixtures("shared")

GRAPH: dict[Any, Any] = {"one": 1, "al": "b-2", "b-1": (tasks.inc, "one"), "b-2": (tasks.inc, "b-1")}


@pytest.fixture
def _tqdm() -> None:
    pytest.importorskip("tqdm")


def counts(text: str) -> list[tuple[int, int]]:
    """Of each time the bar was drawn, how many of how many tasks."""
    return [(int(done), int(total)) for done, total in re.findall(r"(\d+)/(\d+) \[", text)]


def gated(path: Path, value: Any) -> Any:
    until(path.exists)
    return value


@pytest.mark.usefixtures("_tqdm")
class TestBar:
    @pytest.mark.parametrize(
        ("keys", "total"),
        [
            ("b-2", 2),
            (["b-1", "b-2"], 2),
            ([["b-1"], "b-2", "one"], 2),
            ("al", 2),
            (["b-1"], 1),
            ("one", 0),
            ([], 0),
        ],
    )
    @pytest.mark.parametrize("get", [ray_dask_get, ray_dask_get_sync])
    def test_any_shape_of_keys(self, capfd: pytest.CaptureFixture[str], get: Any, keys: Any, total: int) -> None:
        with ProgressBarCallback():
            shown = get(GRAPH, keys, _ray_enable_progress_bar=True)
        assert shown == get(GRAPH, keys)
        out, err = capfd.readouterr()
        assert out == ""
        if total:
            assert counts(err)[-1] == (total, total)
        assert f"\n{total} task{'' if total == 1 else 's'} in " in err

    def test_it_needs_no_callback(self, capfd: pytest.CaptureFixture[str]) -> None:
        assert da.ones(10, chunks=5).sum().compute(scheduler=ray_dask_get, _ray_enable_progress_bar=True) == 10
        done, total = counts(capfd.readouterr().err)[-1]
        assert done == total > 0

    def test_the_callback_alone_shows_nothing(self, capfd: pytest.CaptureFixture[str]) -> None:
        with ProgressBarCallback():
            assert ray_dask_get(GRAPH, "b-2") == 3
        assert capfd.readouterr() == ("", "")

    def test_it_shows_what_has_run(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        gate = tmp_path / "gate"
        graph = {("n", i): (tasks.inc, i) for i in range(3)} | {"last": (gated, gate, 1)}
        shown = ""

        def three_of_four() -> bool:
            nonlocal shown
            shown += capfd.readouterr().err
            return (3, 4) in counts(shown)

        thread = threading.Thread(target=lambda: until(three_of_four) or gate.touch())
        thread.start()
        ray_dask_get(graph, [*graph], _ray_enable_progress_bar=True)
        thread.join()
        assert counts(shown + capfd.readouterr().err)[-1] == (4, 4)

    def test_a_summary_and_no_dump(self, capfd: pytest.CaptureFixture[str]) -> None:
        graph = {("fast-0a1b2c3d", i): (tasks.inc, i) for i in range(50)} | {"nap": (tasks.sleep, 0.05)}
        ray_dask_get(graph, [*graph], _ray_enable_progress_bar=True)
        lines = capfd.readouterr().err.splitlines()
        first = next(number for number, line in enumerate(lines) if line.startswith("51 tasks in "))
        assert re.fullmatch(r"51 tasks in .*, on \d workers?: .* of execution, .* of scheduling and .*", lines[first])
        assert re.fullmatch(r"  nap +1 x +\S+ ms +\d+\.\d%", lines[first + 1])
        assert re.fullmatch(r"  fast +50 x +\S+ [mu]s +\d+\.\d%", lines[first + 2])
        assert len(lines) == first + 3

    def test_the_bar_of_what_fails_ends(self, capfd: pytest.CaptureFixture[str]) -> None:
        graph = {**GRAPH, "bad": (tasks.fail, ValueError, "b-2")}
        with pytest.raises(ValueError, match="3"):
            ray_dask_get(graph, "bad", _ray_enable_progress_bar=True)
        err = capfd.readouterr().err
        assert "failed" in err
        assert err.endswith("\n")
        assert " in " not in err.splitlines()[-1]  # no summary
        ray_dask_get(GRAPH, "b-2", _ray_enable_progress_bar=True)
        assert counts(capfd.readouterr().err)[-1] == (2, 2)

    def test_before_the_hook_at_the_end(self, capfd: pytest.CaptureFixture[str]) -> None:
        with RayDaskCallback(ray_finish=lambda result: print("over", file=sys.stderr)):
            ray_dask_get(GRAPH, "b-2", _ray_enable_progress_bar=True)
        assert capfd.readouterr().err.splitlines()[-1] == "over"

    def test_what_a_hook_answered(self, capfd: pytest.CaptureFixture[str]) -> None:
        with RayDaskCallback(ray_presubmit=lambda task, key, deps: 5 if key == "b-1" else None):
            assert ray_dask_get(GRAPH, "b-2", _ray_enable_progress_bar=True) == 6
        assert counts(capfd.readouterr().err)[-1] == (2, 2)

    def test_persist_shows_none(self, capfd: pytest.CaptureFixture[str]) -> None:
        ray_dask_get(GRAPH, ["b-2"], ray_persist=True, _ray_enable_progress_bar=True)
        assert capfd.readouterr() == ("", "")

    def test_inside_a_task(self, capfd: pytest.CaptureFixture[str]) -> None:
        def inside() -> Any:
            with ProgressBarCallback():
                return ray_dask_get(GRAPH, ["b-2"], _ray_enable_progress_bar=True)

        assert ray_dask_get({"x": (inside,)}, "x") == [3]
        err = capfd.readouterr().err
        assert counts(err)[-1] == (2, 2)
        assert "2 tasks in " in err

    @pytest.mark.parametrize("shape", [lambda refs: refs, lambda refs: (refs[0], (refs[1], 3)), lambda refs: refs[0]])
    def test_render_progress_bar(self, capfd: pytest.CaptureFixture[str], shape: Any) -> None:
        refs = ray_dask_get(GRAPH, ["b-1", "b-2"], ray_persist=True)
        given = shape(refs)
        render_progress_bar(None, given)
        total = 2 if isinstance(given, tuple) else 1
        assert counts(capfd.readouterr().err)[-1] == (total, total)

    def test_render_progress_bar_of_a_tracker(self, capfd: pytest.CaptureFixture[str]) -> None:
        class Tracker:
            def result(self) -> tuple[int, int]:
                return 7, 7

        refs = ray_dask_get(GRAPH, ["b-1"], ray_persist=True)
        render_progress_bar(Tracker(), refs)
        assert counts(capfd.readouterr().err)[-1] == (7, 7)


def test_without_tqdm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*sys.modules]:
        if name.partition(".")[0] == "tqdm":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match=r"eagleray\[progress\]"):
        ray_dask_get(GRAPH, "b-2", _ray_enable_progress_bar=True)
    with pytest.raises(ImportError, match=r"eagleray\[progress\]"):
        render_progress_bar(None, [])
    with ProgressBarCallback():
        assert ray_dask_get(GRAPH, "b-2") == 3


def test_the_option_is_checked() -> None:
    with pytest.raises(TypeError, match="_ray_enable_progress_bar must be True or False, not str"):
        ray_dask_get(GRAPH, "b-2", _ray_enable_progress_bar="yes")


def test_names() -> None:
    assert callbacks.ProgressBarCallback is ProgressBarCallback
    assert scheduler.render_progress_bar is render_progress_bar


def test_summary_of_many_prefixes() -> None:
    ran = [Ran(f"{name}-{i:032x}", i, i + 0.5, 10 + i % 2) for i in range(4) for name in "abcdefg"]
    ran.append(Ran("very" * 20, 0, 4, 10))
    lines = summary(len(ran), 5.0, ran).splitlines()
    assert lines[0].startswith("29 tasks in 5.00 s, on 2 workers: 18.00 s of execution")
    assert lines[1].endswith("1 x     4.00 s  22.2%")
    assert max(map(len, lines[1:])) < 80
    assert lines[-1] == "  and 3 faster prefixes"
    assert summary(1, 1.0, []) == "1 task in 1.00 s"
