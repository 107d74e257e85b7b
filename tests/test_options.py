"""The options of remote functions, classes and methods: what they may be, and what is said of mistakes."""

import pathlib
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import eagleray
from eagleray import _identity, _options, _runtime_env
from eagleray._options import ACTOR, METHOD, TASK
from eagleray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


def function() -> None:
    pass


class Class:
    def get(self) -> None:
        pass


MISTAKES: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"num_cpu": 1}, ValueError, r"unknown option 'num_cpu'\. Did you mean 'num_cpus'\? Valid options: num_cpus, "),
    ({"xyz": 1}, ValueError, r"unknown option 'xyz'\. Valid options"),
    ({"num_cpus": "2"}, TypeError, r"num_cpus of .* must be a number, not str"),
    ({"num_cpus": True}, TypeError, "not bool"),
    ({"num_cpus": -1}, ValueError, "0 or more, not -1"),
    ({"num_cpus": float("inf")}, ValueError, "0 or more"),
    ({"num_gpus": 1.5}, ValueError, r"a part of one GPU, or a whole number of them, not 1\.5"),
    ({"memory": "1 GB"}, TypeError, "memory of .* must be a number, not str"),
    ({"resources": ["a"]}, TypeError, "resources of .* mapping of names to amounts, not list"),
    ({"resources": {1: 1}}, TypeError, "must be strings, not int"),
    ({"resources": {"a": None}}, TypeError, r"\['a'\] must be a number, not NoneType"),
    ({"resources": {"GPU": 1}}, ValueError, "'num_gpus' instead"),
    ({"scheduling_strategy": "spread"}, ValueError, "'DEFAULT', 'SPREAD' or a NodeAffinity.* not 'spread'"),
    ({"scheduling_strategy": object()}, ValueError, "not object"),
    ({"runtime_env": "x"}, TypeError, "runtime_env of .* must be a dict, not str"),
    ({"runtime_env": {"pip": ["x"]}}, ValueError, r"cannot have 'pip'.*env_vars, working_dir, py_modules"),
    ({"runtime_env": {"env_vars": {"a": 1}}}, TypeError, "must map str to str, not 'a' to 1"),
    ({"runtime_env": {"env_vars": {"a=b": "1"}}}, ValueError, "'a=b', which cannot be set"),
    ({"runtime_env": {"env_vars": ["a"]}}, TypeError, "must be a dict, not list"),
    ({"runtime_env": {"working_dir": "/no/such"}}, ValueError, "'/no/such' is none"),
    ({"runtime_env": {"working_dir": "s3://a"}}, ValueError, "nothing is fetched"),
    ({"runtime_env": {"working_dir": 3}}, TypeError, "path of a directory, not int"),
    ({"runtime_env": {"py_modules": "x"}}, TypeError, "must be a list, not str"),
    ({"runtime_env": {"py_modules": [__file__ + "c"]}}, ValueError, "neither"),
    ({"runtime_env": {"py_modules": [3]}}, TypeError, "modules or their paths, not int"),
    ({"runtime_env": {"py_modules": [types.ModuleType("made")]}}, ValueError, "'made', which was not read from a file"),
]

OF_TASKS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"num_returns": -1}, ValueError, "0 or more"),
    ({"num_returns": 1.0}, TypeError, "whole number, not float"),
    ({"num_returns": "many"}, ValueError, "'streaming' or 'dynamic', not 'many'"),
    ({"name": 3}, TypeError, "name of the remote function 'function' must be a str, not int"),
    ({"max_retries": -2}, ValueError, "0 or more, not -2, or -1 for no limit"),
    ({"max_retries": 1.5}, TypeError, "whole number, not float"),
    ({"retry_exceptions": "all"}, TypeError, "list of exception classes, not str"),
    ({"retry_exceptions": [ValueError("x")]}, TypeError, "exception classes"),
    ({"max_restarts": 1}, ValueError, "unknown option 'max_restarts'. Did you mean 'max_retries'"),
]

OF_ACTORS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"name": ""}, ValueError, "name of the actor class 'Class' is empty"),
    ({"namespace": 3}, TypeError, "must be a str"),
    ({"lifetime": "detach"}, ValueError, "'detached', 'non_detached' or None, not 'detach'"),
    ({"get_if_exists": 1}, TypeError, "True or False, not int"),
    ({"max_restarts": -2}, ValueError, "-1 for no limit"),
    ({"max_task_retries": "1"}, TypeError, "whole number, not str"),
    ({"max_concurrency": 0}, ValueError, "at least 1, not 0"),
    ({"max_pending_calls": 0}, ValueError, "at least 1, or -1"),
    ({"num_returns": 2}, ValueError, "unknown option 'num_returns'"),
]


class TestMistakes:
    @pytest.mark.parametrize(("options", "error", "message"), [*MISTAKES, *OF_TASKS])
    def test_of_functions(self, options: dict[str, Any], error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            eagleray.remote(**options)(function)
        with pytest.raises(error, match=message):
            eagleray.remote(function).options(**options)

    @pytest.mark.parametrize(("options", "error", "message"), [*MISTAKES, *OF_ACTORS])
    def test_of_classes(self, options: dict[str, Any], error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            eagleray.remote(**options)(Class)
        with pytest.raises(error, match=message):
            eagleray.remote(Class).options(**options)

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"num_return": 2}, ValueError, "unknown option 'num_return'. Did you mean 'num_returns'"),
            ({"num_returns": "2"}, ValueError, "'streaming' or 'dynamic'"),
            ({"num_cpus": 1}, ValueError, "unknown option 'num_cpus'"),
            ({"label_selector": {}}, ValueError, "unknown option 'label_selector'"),
            ({"max_task_retries": -3}, ValueError, "-1 for no limit"),
        ],
    )
    def test_of_methods(self, options: dict[str, Any], error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            eagleray.method(**options)

    def test_what_has_no_effect_is_said(self) -> None:
        with pytest.warns(
            UserWarning, match="remote function 'function' have no effect.*: accelerator_type, enable_task_events"
        ) as all_:
            eagleray.remote(function).options(enable_task_events=True, accelerator_type="H100")
        assert len(all_) == 1

    def test_what_is_none_is_not_said(self) -> None:
        names = [*TASK, *_options.WITHOUT_EFFECT]
        assert _options.checked(dict.fromkeys(names), TASK, "it") == {}


class TestMeanings:
    def test_what_is_taken(self) -> None:
        said = _options.checked({"num_gpus": 2, "memory": 10, "resources": {"a": 0.5, "b": 0}}, TASK, "it")
        assert _options.demand(said) == {"CPU": 1.0, "GPU": 2.0, "memory": 10.0, "a": 0.5}
        assert _options.demand({"num_cpus": 0.0}) == {"CPU": 0.0}
        assert _options.demand({}) == {"CPU": 1.0}

    def test_retries(self) -> None:
        said = _options.checked({"max_retries": -1, "retry_exceptions": [OSError, KeyError]}, TASK, "it")
        assert said == {"max_retries": -1, "retry_exceptions": (OSError, KeyError)}

    @pytest.mark.parametrize("table", [TASK, ACTOR, METHOD])
    def test_defaults_are_values(self, table: Any) -> None:
        said = {name: option.default for name, option in table.items()}
        assert _options.checked(said, table, "it") == {name: value for name, value in said.items() if value is not None}

    def test_defaults_are_rays(self) -> None:
        def of(table: Any, *names: str) -> list[Any]:
            return [_options.of({}, table, name) for name in names]

        assert of(TASK, "max_retries", "retry_exceptions", "num_returns") == [3, False, 1]
        assert of(ACTOR, "max_restarts", "max_task_retries", "max_pending_calls", "lifetime") == [0, 0, -1, None]
        assert of(ACTOR, "get_if_exists", "name", "namespace") == [False, None, None]

    def test_runtime_env(self, tmp_path: Path) -> None:
        package = tmp_path / "libraries" / "package"
        package.mkdir(parents=True)
        work = tmp_path / "work"
        work.mkdir()
        env = _runtime_env.checked(
            {"env_vars": {"a": "1"}, "working_dir": work, "py_modules": [str(package), sys.modules[__name__]]}, "it"
        )
        tests = str(pathlib.Path(__file__).parent)
        assert env == _runtime_env.RuntimeEnv((("a", "1"),), str(work), (str(tmp_path / "libraries"), tests, str(work)))
        assert (
            _runtime_env.checked({"env_vars": None, "working_dir": None, "py_modules": None}, "it")
            == _runtime_env.RuntimeEnv()
        )

    def test_runtime_env_that_asks_for_nothing(self) -> None:
        said = {"pip": [], "conda": None, "excludes": ["*.csv"], "config": {"setup_timeout_seconds": 60}}
        assert _runtime_env.checked(said, "it") == _runtime_env.RuntimeEnv()

    def test_nodes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        here = _identity.Identity("/tmp/eagleray-x", "n")
        monkeypatch.setattr(_identity, "current", here)
        for strategy in (
            "SPREAD",
            NodeAffinitySchedulingStrategy(here.node),
            NodeAffinitySchedulingStrategy("x", soft=True),
        ):
            _options.reachable({"scheduling_strategy": strategy}, "it")
        with pytest.raises(ValueError, match=f"There is no node 'x' for it. The node of this session is '{here.node}'"):
            _options.reachable({"scheduling_strategy": NodeAffinitySchedulingStrategy("x")}, "it")
