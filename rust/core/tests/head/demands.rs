//! Tasks that demand more than a CPU, or less.

use eagleray_core::head::HeadConfig;
use eagleray_core::ids::{GraphId, PeerId, WorkerId};
use eagleray_core::message::{
    ActorSpec, ClassSpec, Demand, FailureKind, FromNode, GPU, GraphKind, GraphSpec, Refusal, Shortage, ToHead, ToNode,
    Trouble, WHOLE,
};

use crate::fake::{Fake, graph, graph_id, object, wide};

const LICENSE: &str = "license";

/// A node with a license and three GPUs, and its workers. Tasks take 5 ms, which it knows.
fn offering(slots: u32) -> Fake {
    let offers = vec![(LICENSE.into(), WHOLE), (GPU.into(), 3 * WHOLE)];
    let mut fake = Fake::with(HeadConfig { offers, ..HeadConfig::new(slots) });
    for worker in 0..slots {
        fake.up(worker);
    }
    fake.task_ns = 5_000_000;
    fake.run_graph(wide(graph_id(1000), 1));
    fake.run_all();
    fake.sent.clear();
    fake
}

fn demand(cpu: u64, others: &[(&str, u64)]) -> Demand {
    Demand { cpu, others: others.iter().map(|(name, amount)| ((*name).into(), *amount)).collect() }
}

/// These tasks are of this demand, the others of none.
fn demanding(mut spec: GraphSpec, tasks: &[u32], demand: Demand) -> GraphSpec {
    spec.demands.push(demand);
    let (class, demand) = (spec.classes.len() as u32, spec.demands.len() as u32);
    spec.classes.push(ClassSpec { demand, ..spec.classes[0] });
    for &task in tasks {
        spec.class[task as usize] = class;
    }
    spec
}

fn license(seq: u32) -> GraphSpec {
    demanding(wide(graph_id(seq), 1), &[0], demand(WHOLE, &[(LICENSE, WHOLE)]))
}

fn nested(worker: u32) -> GraphId {
    GraphId { peer: PeerId::of_worker(WorkerId(worker)), seq: 1 }
}

#[test]
fn there_is_never_more_than_there_is_and_what_fits_goes_by() {
    let mut fake = offering(2);
    fake.run_graph(license(1));
    fake.run_graph(license(2));
    assert_eq!(fake.only_run().graph, graph_id(1));
    fake.run_graph(wide(graph_id(3), 1));
    assert_eq!(fake.runs_of(1)[0].graph, graph_id(3));
    let first = fake.runs_of(0)[0].clone();
    fake.finish(&first);
    assert_eq!(fake.runs_of(0)[0].graph, graph_id(2));
}

#[test]
fn a_run_is_of_one_demand_and_what_leaves_it_is_published() {
    let mut fake = offering(1);
    let id = graph_id(1);
    let spec = graph(id, &[&[], &[0], &[1], &[2]], &[3]);
    fake.run_graph(demanding(spec, &[1, 2], demand(WHOLE, &[(LICENSE, WHOLE)])));
    fake.ask(1, &[object(id, 3)]);
    let mut runs = Vec::new();
    while fake.answers.is_empty() {
        let published: Vec<_> = fake.sent.extract_if(.., |m| matches!(m, ToNode::Publish { .. })).collect();
        for message in published {
            let ToNode::Publish { worker, objects, .. } = message else { continue };
            for object in objects {
                let place = Some(eagleray_core::message::Place::Inline { len: 8 });
                fake.node(FromNode::Published { worker, object, place, contained: Vec::new() });
            }
        }
        let run = fake.only_run();
        runs.push(run.tasks.clone());
        fake.finish(&run);
    }
    assert_eq!(runs, [vec![0], vec![1], vec![2], vec![3]]);
}

#[test]
fn a_task_of_several_slots_has_them() {
    let mut fake = offering(3);
    fake.run_graph(demanding(wide(graph_id(1), 2), &[0, 1], demand(2 * WHOLE, &[])));
    fake.run_graph(wide(graph_id(2), 1));
    assert_eq!((fake.runs_of(0)[0].graph, fake.runs_of(1)[0].graph), (graph_id(1), graph_id(2)));
    assert_eq!(fake.runs.len(), 2, "one slot is not enough for the second");
    let first = fake.runs_of(0)[0].clone();
    fake.finish(&first);
    assert_eq!(fake.runs_of(0)[0].graph, graph_id(1));
}

#[test]
fn parts_of_a_slot_add_up_and_need_workers_all_the_same() {
    let mut fake = offering(2);
    fake.run_graph(demanding(wide(graph_id(1), 4), &[0, 1, 2, 3], demand(WHOLE / 2, &[])));
    fake.run_graph(demanding(wide(graph_id(2), 1), &[0], demand(0, &[])));
    assert_eq!(fake.runs.len(), 2);
    assert!(fake.runs.values().all(|run| run.graph == graph_id(1)));
}

#[test]
fn gpus_are_given_by_number_and_parts_of_one_together() {
    let mut fake = offering(4);
    let whole = demand(0, &[(GPU, WHOLE)]);
    let half = demand(0, &[(GPU, WHOLE / 2)]);
    fake.run_graph(demanding(demanding(wide(graph_id(1), 4), &[0], whole), &[1, 2, 3], half));
    let mut gpus: Vec<(u32, Vec<u32>)> = fake.runs.values().map(|run| (run.tasks[0], run.gpus.clone())).collect();
    gpus.sort_unstable();
    assert_eq!(gpus, [(0, vec![0]), (1, vec![1]), (2, vec![1]), (3, vec![2])]);
    // Two whole ones are free again only when both halves and the single one are done.
    fake.run_graph(demanding(wide(graph_id(2), 1), &[0], demand(0, &[(GPU, 2 * WHOLE)])));
    for task in [1, 0, 2] {
        assert!(fake.runs.values().all(|run| run.graph == graph_id(1)));
        let run = fake.runs.values().find(|run| run.tasks[0] == task).cloned().expect("it runs");
        fake.finish(&run);
    }
    assert_eq!(fake.runs.values().find(|run| run.graph == graph_id(2)).map(|run| run.gpus.clone()), Some(vec![0, 1]));
}

#[test]
fn what_a_worker_had_is_free_when_it_dies() {
    let mut fake = offering(2);
    fake.run_graph(license(1));
    fake.run_graph(license(2));
    fake.down(0, Some((1, 0)));
    assert_eq!(fake.only_run().graph, graph_id(1));
    fake.run_all();
    assert!(fake.runs.is_empty());
}

#[test]
fn a_worker_whose_queue_never_empties_comes_free_for_it() {
    let mut fake = offering(1);
    fake.run_graph(wide(graph_id(1), 3));
    assert_eq!(fake.runs_of(0).len(), 3);
    fake.run_graph(license(2));
    fake.run_graph(wide(graph_id(3), 50));
    for _ in 0..3 {
        assert!(fake.runs.values().all(|run| run.graph == graph_id(1)), "nothing of a later graph is queued before it");
        let run = fake.runs.values().next().cloned().expect("there is work");
        fake.finish(&run);
    }
    assert_eq!(fake.only_run().graph, graph_id(2));
}

#[test]
fn a_task_of_several_slots_is_passed_by_for_a_while_and_then_no_more() {
    let mut fake = offering(2);
    fake.run_graph(wide(graph_id(1), 1));
    fake.run_graph(demanding(wide(graph_id(2), 1), &[0], demand(2 * WHOLE, &[])));
    fake.run_graph(wide(graph_id(3), 50));
    assert_eq!(fake.runs_of(1)[0].graph, graph_id(3), "what fits goes by");
    fake.now += 200_000_000;
    for _ in 0..2 {
        let run = fake.runs.values().next().cloned().expect("there is work");
        fake.finish(&run);
    }
    assert_eq!(fake.only_run().graph, graph_id(2));
}

#[test]
fn a_resource_in_small_parts_does_not_starve_who_needs_all_of_it() {
    let mut fake = offering(2);
    let part = demand(WHOLE, &[(LICENSE, WHOLE / 2)]);
    fake.run_graph(demanding(wide(graph_id(1), 1), &[0], part.clone()));
    fake.run_graph(license(2));
    let many: Vec<u32> = (0..50).collect();
    fake.run_graph(demanding(wide(graph_id(3), 50), &many, part));
    assert_eq!(fake.runs_of(1)[0].graph, graph_id(3), "what fits goes by");
    fake.now += 200_000_000;
    let first = fake.runs_of(0)[0].clone();
    fake.finish(&first);
    // It may not have the license's other half any more, but what needs none of it goes on.
    assert_eq!(fake.runs.values().map(|run| run.graph).collect::<Vec<_>>(), [graph_id(3)]);
    fake.run_graph(wide(graph_id(4), 1));
    assert_eq!(fake.runs_of(0)[0].graph, graph_id(4));
    let last = fake.runs_of(1)[0].clone();
    fake.finish(&last);
    assert!(fake.runs.values().any(|run| run.graph == graph_id(2)));
}

#[test]
fn what_waits_for_an_actors_resource_keeps_nobody_waiting() {
    let holders = [demand(WHOLE, &[(LICENSE, WHOLE / 2)]), demand(WHOLE, &[])];
    for (holds, wants) in holders.into_iter().zip([demand(WHOLE, &[(LICENSE, WHOLE)]), demand(2 * WHOLE, &[])]) {
        let mut fake = offering(2);
        let actor = ActorSpec { name: None, detached: false, max_restarts: 0, cpu: holds.cpu };
        let spec = GraphSpec { kind: GraphKind::Actor(Box::new(actor)), ..wide(graph_id(1), 1) };
        fake.run_graph(demanding(spec, &[0], holds.clone()));
        fake.run_all();
        fake.up(2);
        fake.run_graph(demanding(wide(graph_id(2), 1), &[0], wants));
        fake.now += 200_000_000;
        fake.run_graph(demanding(wide(graph_id(3), 1), &[0], holds));
        assert_eq!(fake.only_run().graph, graph_id(3));
        fake.run_all();
        // The actor gives it back.
        fake.user(ToHead::KillActor { actor: object(graph_id(1), 0), restart: false });
        fake.down(0, None);
        assert_eq!(fake.only_run().graph, graph_id(2));
    }
}

#[test]
fn what_the_node_does_not_have_fails_at_once() {
    let mut fake = offering(2);
    let asks = [
        (demand(3 * WHOLE, &[]), ("CPU", 3 * WHOLE, 2 * WHOLE)),
        (demand(WHOLE, &[(LICENSE, WHOLE), (GPU, 4 * WHOLE)]), (GPU, 4 * WHOLE, 3 * WHOLE)),
        (demand(WHOLE, &[("nothing", 1)]), ("nothing", 1, 0)),
    ];
    for (seq, (demand, (resource, asked, offered))) in (1..).zip(asks) {
        let id = graph_id(seq);
        fake.run_graph(demanding(graph(id, &[&[], &[0]], &[1]), &[1], demand));
        fake.ask(u64::from(seq), &[object(id, 1)]);
        let failure = fake.failure(u64::from(seq));
        assert_eq!(failure.origin, object(id, 1));
        let shortage = Shortage { resource: resource.into(), asked, offered, held: 0 };
        assert_eq!(failure.kind, FailureKind::Infeasible(Box::new(shortage)));
    }
    assert!(fake.runs.is_empty());
    fake.user(ToHead::Release((1..4).map(|seq| object(graph_id(seq), 1)).collect()));
    assert!((1..4).all(|seq| fake.forgotten(graph_id(seq))));
}

#[test]
fn of_tasks_that_stand_for_themselves_only_those_fail_that_ask_for_too_much() {
    let mut fake = offering(2);
    let id = graph_id(1);
    // The last reads what the second makes.
    let tasks = graph(id, &[&[], &[], &[], &[1]], &[0, 1, 2, 3]);
    let spec = demanding(tasks, &[1, 2], demand(WHOLE, &[("nothing", 1)]));
    fake.run_graph(GraphSpec { kind: GraphKind::Independent, ..spec });
    for (token, (task, origin)) in (1..).zip([(1, 1), (2, 2), (3, 1)]) {
        fake.ask(token, &[object(id, task)]);
        let failure = fake.failure(token);
        assert_eq!(failure.origin, object(id, origin));
        assert!(matches!(failure.kind, FailureKind::Infeasible(_)));
    }
    fake.ask(4, &[object(id, 0)]);
    fake.run_all();
    assert_eq!(fake.values(4), 1);
}

#[test]
fn demands_that_make_no_sense_are_refused() {
    let mut fake = offering(1);
    fake.user(ToHead::Submit(Box::new(demanding(
        wide(graph_id(1), 1),
        &[0],
        demand(0, &[(LICENSE, WHOLE), (LICENSE, WHOLE)]),
    ))));
    let mut spec = wide(graph_id(2), 1);
    spec.classes[0].demand = 1;
    fake.user(ToHead::Submit(Box::new(spec)));
    let why: Vec<_> = fake.refused.iter().map(|(_, refusal)| refusal.clone()).collect();
    assert_eq!(
        why,
        [Refusal::MalformedGraph("a demand names a resource twice"), Refusal::MalformedGraph("unknown demand"),]
    );
}

#[test]
fn a_task_that_blocks_gives_back_its_slots_and_nothing_else() {
    let mut fake = offering(2);
    fake.run_graph(demanding(wide(graph_id(1), 1), &[0], demand(2 * WHOLE, &[(LICENSE, WHOLE)])));
    fake.run_graph(license(2));
    let inner = nested(0);
    fake.run_graph(demanding(wide(inner, 1), &[0], demand(2 * WHOLE, &[])));
    assert_eq!(fake.runs.len(), 1);
    fake.ask_as(inner.peer, 1, &[object(inner, 0)]);
    assert_eq!(fake.runs_of(1)[0].graph, inner);
    let run = fake.runs_of(1)[0].clone();
    fake.finish(&run);
    assert_eq!(fake.values(1), 1);
    assert_eq!(fake.only_run().graph, graph_id(1), "the license is not free");
    let run = fake.only_run();
    fake.finish(&run);
    assert_eq!(fake.only_run().graph, graph_id(2));
}

#[test]
fn what_is_demanded_of_who_waits_for_it_fails() {
    let mut fake = offering(2);
    fake.run_graph(license(1));
    fake.run_graph(wide(graph_id(2), 1));
    let inner = nested(0);
    fake.run_graph(GraphSpec { id: inner, ..license(1) });
    assert!(fake.answers.is_empty());
    fake.ask_as(inner.peer, 1, &[object(inner, 0)]);
    let shortage = Shortage { resource: LICENSE.into(), asked: WHOLE, offered: WHOLE, held: WHOLE };
    let failure = fake.failure(1);
    assert_eq!((failure.origin, failure.kind), (object(inner, 0), FailureKind::Infeasible(Box::new(shortage))));
    fake.ask(2, &[object(graph_id(1), 0), object(graph_id(2), 0)]);
    fake.run_all();
    assert_eq!(fake.values(2), 2, "the task may go on without");
}

#[test]
fn two_that_wait_for_each_others_half_fail_one_after_the_other() {
    let mut fake = offering(2);
    let half = demand(WHOLE, &[(LICENSE, WHOLE / 2)]);
    fake.run_graph(demanding(wide(graph_id(1), 2), &[0, 1], half.clone()));
    assert_eq!(fake.runs.len(), 2);
    for worker in 0..2 {
        assert!(fake.answers.is_empty());
        let inner = nested(worker);
        fake.run_graph(demanding(wide(inner, 1), &[0], half.clone()));
        fake.ask_as(inner.peer, u64::from(worker), &[object(inner, 0)]);
    }
    // When one has failed, its task goes on and gives back its half.
    assert_eq!(fake.answers.len(), 1);
    let (&token, _) = fake.answers.first_key_value().expect("one is answered");
    assert!(matches!(fake.failure(token).kind, FailureKind::Infeasible(_)));
    let run = fake.runs_of(token as u32)[0].clone();
    fake.finish(&run);
    fake.run_all();
    assert_eq!(fake.values(1 - token), 1);
}

#[test]
fn who_holds_but_waits_for_somebody_else_is_waited_for() {
    let mut fake = offering(3);
    fake.run_graph(license(1));
    fake.run_graph(wide(graph_id(2), 1));
    // The task with the license waits for one that runs; another graph waits for the license.
    let peer = PeerId::of_worker(WorkerId(0));
    fake.driver(peer, ToHead::Hold(vec![object(graph_id(2), 0)]));
    fake.ask_as(peer, 1, &[object(graph_id(2), 0)]);
    fake.run_graph(license(3));
    fake.ask(2, &[object(graph_id(3), 0), object(graph_id(1), 0)]);
    assert!(fake.answers.is_empty());
    fake.run_all();
    assert_eq!((fake.values(1), fake.values(2)), (1, 2));
}

#[test]
fn what_starves_does_not_keep_waiting_what_who_has_it_waits_for() {
    let mut fake = offering(3);
    let part = |amount| demand(WHOLE, &[(LICENSE, amount)]);
    fake.run_graph(demanding(wide(graph_id(1), 1), &[0], part(WHOLE / 2)));
    // Inside of the task that has half of the license: one that blocks in turn, and one that needs a quarter of it.
    let middle = nested(0);
    fake.run_graph(demanding(graph(middle, &[&[], &[], &[1]], &[0, 2]), &[2], part(WHOLE / 4)));
    fake.ask_as(middle.peer, 1, &[object(middle, 0), object(middle, 2)]);
    fake.up(3);
    let begun = |fake: &Fake, task| fake.runs.values().find(|run| run.graph == middle && run.tasks == [task]).cloned();
    let (blocks, before) = (begun(&fake, 0).expect("it runs"), begun(&fake, 1).expect("it runs"));
    // Innermost, something that needs all of the license and comes first in the order of service.
    let inner = nested(blocks.id.worker.0);
    fake.run_graph(demanding(wide(inner, 1), &[0], part(WHOLE)));
    fake.ask_as(inner.peer, 2, &[object(inner, 0)]);
    assert!(fake.answers.is_empty());
    fake.now += 200_000_000;
    fake.finish(&before);
    let quarter = begun(&fake, 2).expect("it is not kept waiting");
    fake.finish(&quarter);
    assert!(matches!(fake.failure(2).kind, FailureKind::Infeasible(_)), "all of the license it can never have");
    fake.run_all();
    assert_eq!(fake.values(1), 2);
}

#[test]
fn what_has_no_worker_because_of_who_waits_does_not_go_on() {
    let mut fake = offering(1);
    fake.run_graph(license(1));
    // Its nested graph has an ordinary task left, but the only worker at that depth has one that waits for the license.
    let middle = nested(0);
    fake.run_graph(wide(middle, 2));
    fake.ask_as(middle.peer, 1, &[object(middle, 0), object(middle, 1)]);
    fake.up(1);
    let runs = fake.runs_of(1);
    let inner = nested(1);
    fake.run_graph(GraphSpec { id: inner, ..license(1) });
    fake.ask_as(inner.peer, 2, &[object(inner, 0)]);
    for (run, limit) in runs.iter().zip([1, 0]) {
        fake.node(FromNode::Recalled { run: run.id, limit });
    }
    assert!(matches!(fake.failure(2).kind, FailureKind::Infeasible(_)));
}

#[test]
fn what_a_stuck_graph_has_read_and_lost_does_not_keep_it_waiting() {
    let mut fake = offering(3);
    let (first, waits) = (graph_id(1), graph_id(3));
    fake.run_graph(wide(first, 1));
    fake.run_all();
    fake.run_graph(license(2));
    let mut spec = graph(waits, &[&[3], &[], &[1]], &[0, 2]);
    spec.externals.push(object(first, 0));
    fake.run_graph(demanding(spec, &[2], demand(WHOLE, &[(LICENSE, WHOLE)])));
    let (reads, before) = (fake.runs_of(1).remove(0), fake.runs_of(2).remove(0));
    assert_eq!((&*reads.tasks, &*before.tasks), (&[0][..], &[1][..]));
    fake.finish(&reads);
    // Who has the license waits for what demands it.
    let peer = PeerId::of_worker(WorkerId(0));
    fake.driver(peer, ToHead::Hold(vec![object(waits, 2)]));
    fake.ask_as(peer, 1, &[object(waits, 2)]);
    let mut other = graph(graph_id(4), &[&[1]], &[0]);
    other.externals.push(object(first, 0));
    fake.run_graph(other);
    let missed = fake.runs_of(1)[0].clone();
    fake.finish_with(&missed, 0, Trouble::InputNotHere(vec![object(first, 0)]));
    fake.user(ToHead::Cancel { graph: first });
    assert!(fake.answers.is_empty());
    fake.finish(&before);
    assert!(matches!(fake.failure(1).kind, FailureKind::Infeasible(_)));
}

#[test]
fn tasks_that_ask_for_half_a_cpu_are_more_than_there_are_slots() {
    let mut fake = Fake::new(2);
    let half = Demand { cpu: WHOLE / 2, others: Vec::new() };
    fake.run_graph(demanding(wide(graph_id(1), 6), &[0, 1, 2, 3, 4, 5], half));
    // Whether they are worth a second worker is not known at once.
    fake.tick();
    for worker in 2..4 {
        assert_eq!(fake.runs.len() as u32, worker);
        assert!(fake.sent.contains(&ToNode::Want(worker + 1)), "another worker is needed");
        fake.up(worker);
    }
    assert_eq!(fake.runs.len(), 4);
    assert!(!fake.sent.contains(&ToNode::Want(5)), "there is no CPU left");
}

#[test]
fn a_task_that_asks_for_no_cpu_does_not_wait_for_one() {
    let mut fake = Fake::new(1);
    fake.run_graph(wide(graph_id(1), 1));
    let none = Demand { cpu: 0, others: Vec::new() };
    fake.run_graph(demanding(wide(graph_id(2), 1), &[0], none));
    assert!(fake.sent.contains(&ToNode::Want(2)));
    fake.up(1);
    assert_eq!(fake.runs_of(1)[0].graph, graph_id(2));
}

/// Hundreds of graphs that ask for the same are not all looked at whenever something happens.
#[test]
fn one_of_those_that_ask_for_the_same_is_looked_at() {
    for cpu in [0, WHOLE / 2, WHOLE] {
        for others in [[(LICENSE, WHOLE)], [(GPU, 3 * WHOLE)]] {
            let mut fake = offering(2);
            let before = fake.head.counters().looks;
            for seq in 1..=200 {
                fake.run_graph(demanding(wide(graph_id(seq), 1), &[0], demand(cpu, &others)));
            }
            for seq in 1..=200 {
                let run = fake.only_run();
                assert_eq!(run.graph, graph_id(seq));
                fake.finish(&run);
            }
            let looks = fake.head.counters().looks - before;
            assert!(looks < 3000, "{looks} graphs are looked at");
        }
    }
}

/// Nor are workers started for each of them, though one more could run.
#[test]
fn workers_are_not_started_for_all_who_ask_for_a_part_of_a_cpu() {
    let mut fake = offering(1);
    for seq in 1..=100 {
        fake.run_graph(demanding(wide(graph_id(seq), 1), &[0], demand(WHOLE / 2, &[])));
    }
    let wanted = fake.sent.iter().filter_map(|m| if let ToNode::Want(count) = m { Some(*count) } else { None });
    assert_eq!(wanted.max(), Some(2));
}

/// A task that holds a license waits for another, and for hundreds of others that have one only when it is done.
#[test]
fn who_is_behind_one_that_waits_and_goes_on_is_not_stuck() {
    let mut fake = offering(1);
    fake.run_graph(license(1));
    for seq in 2..=50 {
        fake.run_graph(license(seq));
    }
    let inner = nested(0);
    fake.run_graph(wide(inner, 2));
    fake.ask_as(inner.peer, 1, &[object(inner, 0), object(inner, 1)]);
    fake.up(1);
    while let Some(run) = fake.runs_of(1).first().cloned() {
        fake.finish(&run);
    }
    assert_eq!(fake.values(1), 2);
    fake.ask(2, &[object(graph_id(50), 0)]);
    fake.run_all();
    assert_eq!(fake.values(2), 1);
}
