//! What a user may see of the head.

use eagleray_core::head::{HeadConfig, TaskStanding, TaskView};
use eagleray_core::ids::{GraphId, ObjectId, PeerId, WorkerId};
use eagleray_core::message::{Failure, FailureKind, Place, ToHead, WHOLE};

use crate::fake::{Fake, chain, graph, graph_id, object};

fn task(fake: &Fake, id: GraphId, index: u32) -> TaskView<'_> {
    let graph = fake.head.graph(id).expect("it is known");
    graph.task(index, &fake.head.whereabouts()).expect("it has that task")
}

#[test]
fn tasks_stand_where_they_are() {
    let mut fake = Fake::new(1);
    let id = graph_id(1);
    fake.user(ToHead::Submit(Box::new(graph(id, &[&[], &[0], &[1]], &[2]))));
    assert_eq!(task(&fake, id, 0).standing, TaskStanding::Waits, "it is not admitted");
    fake.user(ToHead::Admit { graph: id, upto: 2 });
    let run = fake.only_run();
    assert_eq!(run.tasks, [0, 1]);
    assert_eq!(task(&fake, id, 0).standing, TaskStanding::Assigned(run.id.worker));
    assert_eq!(task(&fake, id, 1).standing, TaskStanding::Follows(run.id.worker));
    assert_eq!([0, 1, 2].map(|index| task(&fake, id, index).attempts), [1, 0, 0]);
    assert_eq!(fake.head.task_of(run.id, 1), Some(object(id, 1)));
    fake.finish(&run);
    let stands = |fake: &Fake| [0, 1, 2].map(|index| task(fake, id, index).standing);
    assert_eq!(stands(&fake), [TaskStanding::Done, TaskStanding::Done, TaskStanding::Waits]);
    fake.user(ToHead::Cancel { graph: id });
    assert_eq!(stands(&fake)[2], TaskStanding::Failed);
    assert!(matches!(task(&fake, id, 2).failure, Some(Failure { kind: FailureKind::Cancelled, .. })));
    assert_eq!(task(&fake, id, 1).failure, None);
    let graph = fake.head.graph(id).unwrap();
    assert_eq!(graph.inputs(2).collect::<Vec<_>>(), [object(id, 1)]);
    assert_eq!(graph.inputs(3).count(), 0);
    assert_eq!(fake.head.demand_of(graph, 0), [("CPU".into(), WHOLE)]);
}

#[test]
fn objects_say_where_they_are_and_who_holds_them() {
    let mut fake = Fake::new(1);
    let (put, id) = (ObjectId { graph: GraphId::puts(PeerId::USER), index: 0 }, graph_id(1));
    fake.user(ToHead::Put { object: put, place: Place::Sealed { len: 70_000 }, contained: vec![] });
    fake.run_graph(graph(id, &[&[], &[]], &[0]));
    let (objects, total) = fake.head.objects(9);
    assert_eq!((objects.len(), total), (2, 2), "what nobody holds and nobody has made is none");
    assert_eq!(
        (objects[0].object, objects[0].place, objects[0].task),
        (put, Some(Place::Sealed { len: 70_000 }), None)
    );
    assert_eq!((objects[1].holders, &objects[1].peers[..], objects[1].place), (1, &[PeerId::USER][..], None));
    assert!(matches!(objects[1].task, Some(TaskStanding::Assigned(_))));
    let (objects, total) = fake.head.objects(1);
    assert_eq!((objects.len(), total), (1, 2));
    fake.user(ToHead::Release(vec![put]));
    assert_eq!(fake.head.objects(9).1, 1);
}

#[test]
fn workers_are_idle_or_run_something() {
    let mut fake = Fake::new(1);
    assert_eq!(fake.head.worker(WorkerId(0)).unwrap().depth, None);
    assert_eq!(fake.head.worker(WorkerId(7)), None);
    fake.run_graph(chain(graph_id(1), 2));
    let seen = fake.head.worker(WorkerId(0)).unwrap();
    assert_eq!((seen.depth, seen.blocked, seen.actor, seen.kept), (Some(0), false, None, 0));
}

#[test]
fn graphs_that_are_over_are_kept_for_who_wants_them() {
    for keeps_ended in [false, true] {
        let mut fake = Fake::with(HeadConfig { keeps_ended, ..HeadConfig::new(1) });
        fake.up(0);
        for seq in 1..3 {
            fake.run_graph(chain(graph_id(seq), 3));
            while let Some(run) = fake.runs.values().next().cloned() {
                fake.finish(&run);
            }
            fake.user(ToHead::Release(vec![object(graph_id(seq), 2)]));
            assert!(fake.forgotten(graph_id(seq)));
        }
        let whereabouts = fake.head.whereabouts();
        let mut seen = Vec::new();
        while let Some(ended) = fake.head.take_ended() {
            let view = ended.view();
            assert_eq!(view.inputs(2).collect::<Vec<_>>(), [view.object(1)]);
            assert!((0..3).all(|index| view.task(index, &whereabouts).unwrap().standing == TaskStanding::Done));
            seen.push(view.id());
        }
        assert_eq!(
            seen,
            if keeps_ended { vec![graph_id(1), graph_id(2)] } else { vec![] },
            "in the order of their end"
        );
    }
}
