//! Graphs as Dask's collections make them.

use super::{Options, check, check_with};

#[test]
fn array_is_fused_into_few_templates() {
    let code = r"
import dask.array as da
dsk, keys = captured((da.ones((60, 60), chunks=10) + 1).sum())
";
    check_with(code, Options::default(), |_, graph| {
        // Fused tasks of two calls each: a template has as many steps as its inner graph.
        assert!(graph.templates.iter().any(|(code, _)| code[0] > 1));
        assert!(graph.templates.len() <= 12, "{} templates", graph.templates.len());
    });
}

#[test]
fn array_without_optimisation() {
    check(
        r#"
import dask.array as da
x = da.arange(40, chunks=7).reshape(8, 5)
with dask.config.set({"optimization.fuse.active": False}):
    dsk, keys = captured((x.T @ x + x.mean(axis=0)).rechunk(2))
"#,
    );
    check(
        r"
import dask.array as da
x = da.arange(40, chunks=7).reshape(8, 5)
dsk = dict((x.T @ x + x.mean(axis=0)).rechunk(2).__dask_graph__())
keys = [list(dsk)]
",
    );
}

#[test]
fn array_of_numpy() {
    let code = r"
import dask.array as da, numpy as np
source = np.arange(160_000.0).reshape(400, 400)
x = da.from_array(source, chunks=200)
dsk, keys = captured((x.rechunk(100).T + da.from_array(np.arange(400.0), chunks=100))[::3])
";
    // Chunks of 320 kB are objects, those of 800 B are constants.
    check_with(code, Options::default(), |_, graph| assert_eq!(graph.literals.len(), 4));
}

#[test]
fn dataframe() {
    for expression in
        ["df.groupby('a').b.mean()", "df.set_index('b')", "(df.b + 1).sum()", "df.merge(df, on='a').b_x.max()", "df"]
    {
        check(&format!(
            r#"
import dask.dataframe as dd, numpy as np, pandas as pd
df = dd.from_pandas(pd.DataFrame({{"a": np.arange(100) % 5, "b": np.arange(100.0)}}), npartitions=4)
with dask.config.set({{"dataframe.shuffle.method": "tasks"}}):
    dsk, keys = captured({expression})
"#
        ));
    }
}

#[test]
fn fused_dataframe_is_compiled() {
    let code = r#"
import dask.dataframe as dd, numpy as np, pandas as pd
df = dd.from_pandas(pd.DataFrame({"a": np.arange(100) % 5, "b": np.arange(100.0)}), npartitions=4)
dsk, keys = captured((df.b + df.a * 2).sum().optimize(fuse=True))
"#;
    check_with(code, Options::default(), |_, graph| assert!(graph.templates.iter().any(|(code, _)| code[0] > 2)));
}

#[test]
fn dataframes_own_executor_of_inner_graphs_is_compiled() {
    let code = r"
from dask.dataframe.dask_expr._expr import Fused
inner = [Task('b', add, TaskRef('a'), TaskRef('x')), Task('a', inc, TaskRef('x'))]
execute = Fused._execute_internal_graph
dsk = {'x': (inc, 1), 't': Task('t', execute, DataNode(None, inner), Dict({'x': TaskRef('x')}), 'b')}
keys = 't'
";
    check_with(code, Options::default(), |_, graph| assert!(graph.templates.iter().any(|(code, _)| code[0] == 2)));
}

#[test]
fn bag() {
    check(
        r"
import dask.bag as db
dsk, keys = captured(db.range(20, 3).map(lambda x: x * 2).filter(lambda x: x % 3).fold(add))
",
    );
    check(
        r#"
import dask.bag as db
words = db.from_sequence("the quick brown fox jumps over the lazy dog".split(), npartitions=3)
with dask.config.set(scheduler="sync"):
    dsk, keys = captured(words.groupby(len, shuffle="tasks").map(lambda kv: (kv[0], sorted(kv[1]))))
"#,
    );
}

#[test]
fn delayed() {
    check(
        r#"
from typing import NamedTuple
class Point(NamedTuple):
    x: int
    y: object

@dask.delayed
def f(*args, **kwargs):
    return args, sorted(kwargs.items())

dsk, keys = captured(f([f(1), {"a": f(2)}], {3, 4}, Point(1, f(5)), slice(f(1), 2), x=f(3), y=(f(4), None)))
"#,
    );
}
