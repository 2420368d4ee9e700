//! The key layout `cluster`: what becomes of tasks whose queues are spread over the nodes of a cluster.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use std::{
    collections::HashSet,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant as Clock},
};

use codeq_plugin::{
    AllowNotify, AsyncPersistence, AsyncResultStorage, AsyncSubscriptionStorage, AsyncTaskStorage,
    Boxed, ByCommand, Claim, Cleanup, Enqueue, Error, ErrorKind, Extend, GroupKey, Instant, Lease,
    ListTasks, Location, Millis, Placed, Queue, Result, Subscription, Task, TaskKey, TaskStatus,
};
use codeq_redis::{Config, Redis};
use codeq_test_servers::Cluster;
use futures_util::future::{Either, join_all, select};
use redis::Commands;
use support::{
    traffic::{LIMIT, Traffic, hears_of_tasks, insist, interrupted},
    *,
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

fn config(cluster: &Cluster) -> Config {
    Config { key_layout: "cluster".into(), nodes: cluster.nodes(), ..Config::default() }
}

async fn open(config: Config) -> Result<Redis> {
    Redis::open(config, context(rules())).await
}

async fn store(cluster: &Cluster) -> Redis {
    open(config(cluster)).await.unwrap()
}

async fn refusal(config: Config) -> Error {
    open(config).await.err().unwrap()
}

fn of(command: &str, tenant: &str, id: &str) -> Task {
    Task { command: command.into(), tenant_id: tenant.into(), ..task(id) }
}

fn held(task: &Task) -> Lease {
    Lease {
        task_id: task.id.clone(),
        worker_id: task.worker_id.clone(),
        tenant_id: task.tenant_id.clone(),
        attempt: task.attempts,
        ..Lease::default()
    }
}

fn sorted(tasks: &[Boxed<Task>]) -> Vec<&str> {
    let mut ids: Vec<_> = tasks.iter().map(|task| task.id.as_str()).collect();
    ids.sort_unstable();
    ids
}

/// Queues that are on all nodes, as far as chance can be told to.
const COMMANDS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

#[tokio::test]
async fn tasks_of_several_queues_live_their_whole_life() {
    let cluster = Cluster::start();
    let owners: HashSet<String> =
        COMMANDS.iter().map(|name| cluster.owner(cluster.slot(&format!("{{{name}:a}}")))).collect();
    assert_eq!(owners.len(), 3, "the queues of this test should be on all nodes");
    let store = store(&cluster).await;

    let batch = COMMANDS.iter().map(|name| Enqueue::now(of(name, "a", name))).collect();
    for enqueued in store.enqueue(batch).await.unwrap() {
        let enqueued = enqueued.unwrap();
        assert!(enqueued.created && enqueued.awoke);
    }
    store.put(of("a", "b", "another tenant's")).await;
    let got = store.get(vec!["f".into(), "unknown".into(), "a".into()]).await.unwrap();
    assert_eq!(got[0].as_ref().unwrap().command, "f");
    assert_eq!(got[1].as_ref().unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(got[2].as_ref().unwrap().command, "a");

    let commands = ["c", "nothing", "B"].map(Into::into).into_iter().collect();
    let named = store.take(Claim { commands, ..ask(9) }).await;
    assert_eq!(named.iter().map(|task| task.id.as_str()).collect::<Vec<_>>(), ["c", "b"]);
    let mut rest = store.take(ask_any(9)).await;
    rest.sort_by(|one, other| one.id.cmp(&other.id));
    assert_eq!(sorted(&rest), ["a", "d", "e", "f"]);
    assert!(store.take(ask_any(9)).await.is_empty());

    let all: Vec<_> = named.iter().chain(&rest).collect();
    let extend = |task: &Boxed<Task>| Extend { lease: held(task), by: Millis::from_secs(90) };
    for deadline in store.update_lease(all.iter().map(|task| extend(task)).collect()).await.unwrap()
    {
        assert!(deadline.unwrap() > Instant::now() + Millis::from_secs(80));
    }
    let [c, b, a, d, e, f] = &all[..] else { panic!() };
    let done = store.finish(held(c)).await.unwrap().task;
    assert_eq!(done.status, TaskStatus::Completed);
    let results = store.get_result(vec!["c".into(), "b".into()]).await.unwrap();
    assert_eq!(results[0].as_ref().unwrap().result, r#"{"ok":true}"#);
    assert_eq!(results[1].as_ref().unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.finish(held(c)).await.unwrap_err().kind(), ErrorKind::NotInProgress);

    assert!(store.hand_back(held(b)).await.unwrap().awoke);
    assert!(store.fail(held(a), "no").await.unwrap().awoke);
    assert_eq!(sorted(&store.take(ask_any(9)).await), ["a", "b"]);
    let delayed = store.fail_for(held(d), 60_000).await.unwrap().task;
    assert_eq!(delayed.last_known_location, Location::DelayedZset);
    assert_eq!(store.finish(lease("e", 2)).await.unwrap_err().kind(), ErrorKind::NotOwner);
    let wrong = store.delete(vec!["e".into(), "e".into(), "f".into()]).await.unwrap();
    assert!(wrong[0].is_ok() && wrong[2].is_ok());
    assert_eq!(wrong[1].as_ref().unwrap_err().kind(), ErrorKind::NotFound);
    for gone in [e, f] {
        assert_eq!(store.one(&gone.id).await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(store.finish(held(gone)).await.unwrap_err().kind(), ErrorKind::NotFound);
    }

    let stats = store.admin_queues(Some("a".into())).await.unwrap();
    let counts = stats.iter().map(|one| {
        format!("{}{}{}{}{}", one.command, one.ready, one.delayed, one.in_progress, one.dlq)
    });
    assert_eq!(counts.collect::<Vec<_>>(), ["a0010", "b0010", "c0000", "d0100", "e0000", "f0000"]);
    assert_eq!(store.admin_queues(None).await.unwrap().len(), 7);
}

#[tokio::test]
async fn what_comes_due_or_expires_in_any_queue_is_moved() {
    let cluster = Cluster::start();
    let store = store(&cluster).await;
    let soon = Instant::now() + Millis(100);
    for name in COMMANDS {
        store.put_as(delayed(of(name, "a", name), soon)).await.unwrap();
    }
    assert!(store.take(ask_any(9)).await.is_empty());
    let told = store.move_due_delayed(100).await.unwrap().next.unwrap();
    assert!(told <= soon, "{told} {soon}");
    until(soon + Millis(5)).await;
    let moved = store.move_due_delayed(100).await.unwrap();
    assert_eq!((moved.count, moved.arrivals.len()), (6, 6));

    let brief = Claim { lease: Millis(50), ..ask_any(9) };
    let claimed = store.take(brief).await;
    assert_eq!(sorted(&claimed), COMMANDS);
    until(Instant::now() + Millis(60)).await;
    let again = store.claim(ask_any(9)).await.unwrap();
    assert_eq!(ids(&again).len(), 6);
    assert_eq!(again.moved.unwrap().expired.len(), 6);
    assert_eq!(store.requeue_expired(100).await.unwrap().count, 0);

    let last = Task { max_attempts: 1, ..of("z", "a", "z") };
    store.put(last).await;
    let z = Claim { commands: ["z".into()].into_iter().collect(), ..ask(1) };
    let dead = store.take(z).await;
    let dead = store.fail(held(&dead[0]), "broken").await.unwrap().task;
    assert_eq!(dead.last_known_location, Location::DlqSet);
    let key = TaskKey { id: "z".into(), tenant_id: "a".into() };
    assert!(only(store.redrive(vec![key]).await).unwrap().awoke);
    assert_eq!(sorted(&store.take(ask_any(9)).await), ["z"]);
}

#[tokio::test]
async fn odd_names_are_names() {
    let cluster = Cluster::start();
    let store = store(&cluster).await;
    let names = ["a:b", "{a}", "a}", "%", "ÉMAIL 1", "\0", ":"];
    for (number, name) in names.iter().enumerate() {
        let id = format!("{name}{number} {{}}");
        let new = Enqueue { idempotency_key: (*name).into(), ..Enqueue::now(of(name, name, &id)) };
        assert!(store.put_as(new.clone()).await.unwrap().created);
        assert!(!store.put_as(new).await.unwrap().created);
    }
    for (number, name) in names.iter().enumerate() {
        let mine = |commands: Vec<_>| Claim {
            tenant_id: (*name).into(),
            commands: commands.into(),
            ..ask(9)
        };
        let any = mine(vec![]);
        let claimed = store.take(any).await;
        let id = format!("{name}{number} {{}}");
        assert_eq!(sorted(&claimed), [id.as_str()]);
        store.hand_back(held(&claimed[0])).await.unwrap();
        let claimed = store.take(mine(vec![(*name).into()])).await;
        assert_eq!(claimed[0].command, *name);
        store.finish(held(&claimed[0])).await.unwrap();
    }
    let stats = store.admin_queues(None).await.unwrap();
    assert_eq!(stats.len(), names.len());
    assert!(stats.iter().any(|one| one.command == "émail 1" && one.tenant_id == "ÉMAIL 1"));
}

#[tokio::test]
async fn a_key_is_one_for_all_commands_of_a_tenant_and_an_id_for_all_queues() {
    let cluster = Cluster::start();
    let store = store(&cluster).await;
    let keyed_in = |command, tenant, id| keyed(of(command, tenant, id), "k");
    let batch = vec![
        keyed_in("a", "a", "1"),
        keyed_in("b", "a", "2"),
        keyed_in("b", "b", "3"),
        Enqueue::now(of("c", "a", "1")),
    ];
    let answers = store.enqueue(batch).await.unwrap();
    let made: Vec<_> =
        answers.iter().flatten().map(|one| (one.task.id.as_str(), one.created)).collect();
    assert_eq!(made, [("1", true), ("1", false), ("3", true)]);
    assert_eq!(answers[3].as_ref().unwrap_err().kind(), ErrorKind::AlreadyExists);

    let taken = store.put_as(keyed(of("d", "a", "3"), "other")).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
    assert!(store.put_as(keyed(of("d", "a", "4"), "other")).await.unwrap().created);
    store.delete(vec!["1".into()]).await.unwrap();
    assert!(store.put_as(keyed_in("e", "a", "1")).await.unwrap().created);
    assert_eq!(store.one("1").await.unwrap().command, "e");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_that_race_for_a_key_make_one_task() {
    let cluster = Cluster::start();
    let stores = Arc::new([store(&cluster).await, store(&cluster).await]);
    for round in 0..20 {
        let mut racers = JoinSet::new();
        for racer in 0..6 {
            let stores = Arc::clone(&stores);
            racers.spawn(async move {
                let new = of(COMMANDS[racer], "a", &format!("{round}/{racer}"));
                let new = keyed(new, &format!("k{round}"));
                insist(|| stores[racer % 2].put_as(new.clone())).await
            });
        }
        let answers = racers.join_all().await;
        assert_eq!(answers.iter().filter(|one| one.created).count(), 1);
        assert!(answers.iter().all(|one| one.task.id == answers[0].task.id));
    }
    let ready: u64 = stores[0].admin_queues(None).await.unwrap().iter().map(|one| one.ready).sum();
    assert_eq!(ready, 20);
}

/// What a node is told from now on.
struct Monitor(redis::Connection);

impl Monitor {
    fn of(cluster: &Cluster, addr: &str) -> Monitor {
        let mut connection = cluster.connection(addr);
        connection.send_packed_command(&redis::cmd("MONITOR").get_packed_command()).unwrap();
        connection.recv_response().unwrap();
        Monitor(connection)
    }

    /// The arguments of the next command in which all these words are.
    fn next_with(&mut self, words: &[&str]) -> Vec<String> {
        loop {
            let line: String = redis::from_redis_value(self.0.recv_response().unwrap()).unwrap();
            let command = arguments(&line);
            if words.iter().all(|word| command.iter().any(|argument| argument == word)) {
                return command;
            }
        }
    }
}

/// Reads the quoted arguments of a line of `MONITOR`.
fn arguments(line: &str) -> Vec<String> {
    let (mut arguments, mut chars) = (Vec::new(), line.chars());
    while chars.by_ref().any(|c| c == '"') {
        let mut argument = String::new();
        while let Some(c) = chars.next() {
            match c {
                '"' => break,
                '\\' => argument.extend(chars.next()),
                c => argument.push(c),
            }
        }
        arguments.push(argument);
    }
    arguments
}

#[tokio::test]
async fn whoever_reserved_a_key_and_comes_late_comes_to_nothing() {
    let cluster = Cluster::start();
    let store = store(&cluster).await;
    let slot = cluster.slot("{mail:a}");
    let owner = cluster.owner(slot);
    let mut monitor = Monitor::of(&cluster, &owner);
    store.put_as(keyed(task("probe"), "some key")).await.unwrap();
    let enqueue = monitor.next_with(&["?", "probe", "MAIL"]);
    let attempt = &enqueue[enqueue.iter().position(|argument| argument == "?").unwrap() + 1];

    // Another host reserves keys for tasks, and is slow. One of its tasks comes in time, one too late.
    let reserve = |key: &str, id: &str| {
        let reserved = format!("{id} mail:a attempt-{id} 1");
        let key = format!("codeq:idempo:{{a:{key}}}");
        cluster.query::<()>(&key, redis::cmd("SET").arg(&key).arg(reserved));
    };
    let come = |id: &str| -> String {
        let mut late = redis::cmd(&enqueue[0]);
        for argument in &enqueue[1..] {
            let argument = argument.replace(attempt, &format!("attempt-{id}"));
            late.arg(argument.replace("probe", id));
        }
        let (_, _, answer): (String, Vec<String>, Vec<String>) = cluster.query("{mail:a}", &late);
        answer[0].clone()
    };
    reserve("in-time", "early");
    assert_eq!(come("early"), "created");
    let found = store.put_as(keyed(of("other", "a", "mine"), "in-time")).await.unwrap();
    assert_eq!((found.task.id.as_str(), found.created), ("early", false));

    reserve("too-late", "late");
    let made = store.put_as(keyed(of("other", "a", "mine"), "too-late")).await.unwrap();
    assert_eq!((made.task.id.as_str(), made.created), ("mine", true));
    assert_eq!(come("late"), "forbidden");
    let again = store.put_as(keyed(of("third", "a", "another"), "too-late")).await.unwrap();
    assert_eq!((again.task.id.as_str(), again.created), ("mine", false));

    let garbage = "codeq:idempo:{a:spoiled}";
    cluster.query::<()>(garbage, redis::cmd("SET").arg(garbage).arg("x"));
    let error = store.put_as(keyed(task("x"), "spoiled")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains(garbage), "{error}");
}

#[tokio::test]
async fn what_a_host_left_behind_that_died_is_swept() {
    let cluster = Cluster::start();
    let store = store(&cluster).await;
    store.put(task("there")).await;
    let point = |id: &str, said: &str| {
        let key = format!("codeq:at:{{{id}}}");
        cluster.query::<()>(&key, redis::cmd("SET").arg(&key).arg(said));
    };
    let is_there = |id: &str| -> bool {
        let key = format!("codeq:at:{{{id}}}");
        cluster.query(&key, redis::cmd("EXISTS").arg(&key))
    };
    let recent = Instant::now().0;
    for n in 0..20 {
        point(&format!("gone{n}"), "mail:a 1 x");
    }
    point("nowhere", "no tag 1 x");
    point("there", "mail:a 1 x");
    point("recent", &format!("mail:a {recent} x"));
    let swept = async {
        while is_there("nowhere") || (0..20).any(|n| is_there(&format!("gone{n}"))) {
            store.requeue_expired(1).await.unwrap();
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LIMIT, swept).await.unwrap();
    assert!(is_there("there") && is_there("recent"));
    assert_eq!(store.one("there").await.unwrap().id, "there");

    // What a failing node lost is said anew.
    let forgotten = "codeq:at:{there}";
    cluster.query::<()>(forgotten, redis::cmd("DEL").arg(forgotten));
    let restored = async {
        while !is_there("there") {
            store.requeue_expired(1).await.unwrap();
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LIMIT, restored).await.unwrap();

    // A task may be put where something was left behind.
    assert!(store.put_as(Enqueue::now(of("else", "a", "recent"))).await.unwrap().created);
    assert_eq!(store.one("recent").await.unwrap().command, "else");
}

#[tokio::test]
async fn a_saved_task_moves_to_the_queue_that_it_names() {
    let cluster = Cluster::start();
    let (store, other) = (store(&cluster).await, store(&cluster).await);
    store.put(of("a", "a", "t")).await;
    let claim = Claim { commands: ["a".into()].into_iter().collect(), ..ask(1) };
    let claimed = store.take(claim).await;
    let done = store.finish(held(&claimed[0])).await.unwrap().task;
    assert_eq!(other.one("t").await.unwrap(), done);

    let moved = Task { command: "f".into(), tenant_id: "b".into(), ..(*done).clone() };
    let placed = Placed { task: Boxed::new(moved), visible_at: Instant::EPOCH };
    only(store.save(vec![placed]).await).unwrap();
    for host in [&store, &other] {
        assert_eq!(host.one("t").await.unwrap().command, "f");
        assert!(only(host.get_result(vec!["t".into()]).await).is_ok());
    }
    let tasks = store.list(ListTasks { limit: 9, ..ListTasks::default() }).await.unwrap().tasks;
    assert_eq!(tasks.len(), 1);
}

#[tokio::test]
async fn everything_is_listed_once_and_removed_when_its_time_is_over() {
    let cluster = Cluster::start();
    let store = store(&cluster).await;
    for name in COMMANDS {
        for number in 0..5 {
            store.put(of(name, "a", &format!("{name}{number}"))).await;
        }
    }
    store.put(of("a", "b", "b's")).await;
    let list = |limit| ListTasks { limit, ..ListTasks::default() };
    for limit in [1, 7, 100] {
        let (mut seen, mut page) = (Vec::new(), store.list(list(limit)).await.unwrap());
        loop {
            assert!(page.tasks.len() <= limit as usize);
            seen.extend(page.tasks.iter().map(|placed| placed.task.id.to_string()));
            if page.cursor.is_empty() {
                break;
            }
            let next = ListTasks { cursor: page.cursor, ..list(limit) };
            page = store.list(next).await.unwrap();
        }
        assert_eq!(seen.iter().collect::<HashSet<_>>().len(), 31);
        assert_eq!(seen.len(), 31);
    }
    let of_a = ListTasks { command: Some("A".into()).into(), ..list(100) };
    assert_eq!(store.list(of_a).await.unwrap().tasks.len(), 6);

    let before = Instant::now() + Millis::from_secs(100 * 3600);
    let cleanup = |tenant: Option<&str>, limit| Cleanup {
        tenant_id: tenant.map(Into::into).into(),
        before,
        limit,
        ..Cleanup::default()
    };
    assert_eq!(store.cleanup_expired(cleanup(Some("b"), 9)).await.unwrap(), 1);
    assert_eq!(store.cleanup_expired(cleanup(None, 20)).await.unwrap(), 20);
    assert_eq!(store.cleanup_expired(cleanup(None, 20)).await.unwrap(), 10);
    assert!(store.list(list(9)).await.unwrap().tasks.is_empty());
}

#[tokio::test]
async fn subscriptions_are_all_in_one_place() {
    let cluster = Cluster::start();
    let (store, other) = (store(&cluster).await, store(&cluster).await);
    let subscription = |id: &str, command: &str| Subscription {
        id: id.into(),
        worker_id: "w".into(),
        tenant_id: "a".into(),
        callback_url: "http://x/".into(),
        event_types: [command.into()].into_iter().collect(),
        expires_at: Instant::now() + Millis::from_secs(60),
        ..Subscription::default()
    };
    let batch = vec![Boxed::new(subscription("1", "ÄNDERN")), Boxed::new(subscription("2", "*"))];
    assert!(store.register(batch).await.unwrap().iter().all(Result::is_ok));
    let about = |command: &str| ByCommand { tenant_id: "a".into(), command: command.into() };
    assert_eq!(other.get_by_command(about("ändern")).await.unwrap().len(), 2);
    assert_eq!(other.get_by_command(about("other")).await.unwrap().len(), 1);
    let notice = || AllowNotify { subscription_id: "1".into(), min_interval: Millis(60_000) };
    let allowed = store.allow_notify(vec![notice(), notice()]).await.unwrap();
    assert_eq!(allowed.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [true, false]);
    let group = || GroupKey { command: "x".into(), tenant_id: "a".into(), group_id: "g".into() };
    let turns = store.next_group_index(vec![group(), group()]).await.unwrap();
    assert_eq!(turns.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [0, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_share_a_cluster() {
    let cluster = Cluster::start();
    let (here, there) = (store(&cluster).await, store(&cluster).await);
    hears_of_tasks(&there, &here).await;
    while !there.take(ask_any(100)).await.is_empty() {}

    for name in COMMANDS {
        here.put(of(name, "a", name)).await;
    }
    let claimed = there.take(ask_any(9)).await;
    assert_eq!(sorted(&claimed), COMMANDS);
    for task in &claimed {
        here.finish(held(task)).await.unwrap();
    }
    let queue = Queue { tenant_id: "a".into(), command: "f".into() };
    assert_eq!(there.queue_stats(queue).await.unwrap().in_progress, 0);

    // What others delayed is known to all within a second or two.
    here.put_as(delayed(of("a", "a", "later"), Instant::now() + Millis(50))).await.unwrap();
    let found = async {
        loop {
            there.move_due_delayed(10).await.unwrap();
            if let Some(task) = there.take(ask_any(1)).await.pop() {
                return task.id.to_string();
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    assert_eq!(timeout(LIMIT, found).await.unwrap(), "later");

    // A hint that was lost with its host is made anew.
    here.put(of("b", "a", "unnoticed")).await;
    let hints = "codeq:{ready:a}:queues";
    cluster.query::<()>(hints, redis::cmd("DEL").arg(hints));
    let found = async {
        loop {
            there.move_due_delayed(10).await.unwrap();
            if let Some(task) = there.take(ask_any(1)).await.pop() {
                return task.id.to_string();
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    assert_eq!(timeout(LIMIT, found).await.unwrap(), "unnoticed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_move_while_tasks_flow_and_none_is_lost_or_done_twice() {
    let cluster = Cluster::start();
    let stores = [Arc::new(store(&cluster).await), Arc::new(store(&cluster).await)];
    let traffic = Traffic::begin(&stores, &["a", "b", "c"]);
    traffic.flows().await;
    let nodes = cluster.nodes();
    for round in 0..2 {
        for key in ["{a:a}", "{b:a}", "{c:a}", "{registry}", "{ready:a}"] {
            let slot = cluster.slot(key);
            let from = nodes.iter().position(|node| *node == cluster.owner(slot)).unwrap();
            let to = &nodes[(from + 1 + round) % nodes.len()];
            cluster.begin_moving(slot, to);
            sleep(Duration::from_millis(30)).await;
            cluster.move_keys(slot, to);
            sleep(Duration::from_millis(30)).await;
            cluster.move_keys(slot, to);
            cluster.end_moving(slot, to);
        }
        // Where tasks are is moved, too.
        for id in ["a0", "b0", "a1", "b1"] {
            let slot = cluster.slot(&format!("{{{id}}}"));
            cluster.move_slot(slot, &nodes[round]);
        }
        traffic.flows().await;
    }
    let account = traffic.end(&stores[0]).await;
    let never = Clock::now();
    account.lost_nothing_outside(never, never);
    account.delivered_once_per_lease();
}

#[tokio::test]
async fn a_slot_that_is_on_its_way_for_long_is_unavailable() {
    let cluster = Cluster::start();
    let store = open(Config { command_timeout_ms: 400, ..config(&cluster) }).await.unwrap();
    store.put(task("t")).await;
    let slot = cluster.slot("{mail:a}");
    let to = cluster.nodes().into_iter().find(|node| *node != cluster.owner(slot)).unwrap();
    cluster.begin_moving(slot, &to);
    cluster.move_keys(slot, &to);
    let begun = Clock::now();
    let error = store.claim(ask(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("on their way to another node"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(2));
    store.put(of("other", "a", "elsewhere")).await;
    cluster.end_moving(slot, &to);
    assert_eq!(store.take_ids(1).await, ["t"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_takes_over_and_what_it_has_is_kept() {
    let mut cluster = Cluster::start_with_replicas();
    let stores = [Arc::new(store(&cluster).await), Arc::new(store(&cluster).await)];
    let traffic = Traffic::begin(&stores, &["a", "b", "c"]);
    traffic.flows().await;
    let replicated = Clock::now();
    cluster.wait_for_replicas();
    let slot = cluster.slot("{a:a}");
    let master = cluster.owner(slot);
    cluster.kill(&master);
    cluster.wait_for_successor(slot, &master);
    cluster.wait_until_ok();
    insist(|| stores[0].health()).await;
    let queue = || Queue { tenant_id: "a".into(), command: "a".into() };
    insist(|| stores[0].queue_stats(queue())).await;
    insist(|| stores[1].queue_stats(queue())).await;
    let followed = Clock::now();
    traffic.flows().await;
    cluster.restart(&master);
    traffic.flows().await;
    traffic.end(&stores[0]).await.lost_nothing_outside(replicated, followed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_or_hangs_costs_its_own_queues_only() {
    let mut cluster = Cluster::start();
    for addr in cluster.nodes() {
        let set = redis::cmd("CONFIG").arg(&["SET", "cluster-require-full-coverage", "no"]).clone();
        let () = set.query(&mut cluster.connection(&addr)).unwrap();
    }
    let store = open(Config { command_timeout_ms: 500, ..config(&cluster) }).await.unwrap();
    for name in COMMANDS {
        store.put(of(name, "a", name)).await;
    }
    let other = open(config(&cluster)).await.unwrap();
    hears_of_tasks(&other, &store).await;
    // What claims of any command and admin views need is not on the victim.
    let spared_nodes = ["{ready:a}", "{registry}"].map(|key| cluster.owner(cluster.slot(key)));
    let owner = |name: &str| cluster.owner(cluster.slot(&format!("{{{name}:a}}")));
    let hit = COMMANDS.into_iter().find(|name| !spared_nodes.contains(&owner(name))).unwrap();
    let victim = owner(hit);
    let stats = |name: &str| Queue { tenant_id: "a".into(), command: name.into() };
    let spared: Vec<_> = COMMANDS.into_iter().filter(|name| owner(name) != victim).collect();

    cluster.hang(&victim);
    let begun = Clock::now();
    let error = store.queue_stats(stats(hit)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(store.queue_stats(stats(spared[0])).await.unwrap().ready, 1);
    // Nobody waits with those who ask for what is on the node that hangs.
    let in_vain = pin!(join_all((0..8).map(|_| store.get(vec![hit.into()]))));
    let spared_task = pin!(store.get(vec![spared[0].into()]));
    match select(in_vain, spared_task).await {
        Either::Left((answers, _)) => panic!("first came {answers:?}"),
        Either::Right((answers, _)) => assert_eq!(only(answers).unwrap().id, spared[0]),
    }
    cluster.resume(&victim);
    assert_eq!(insist(|| store.queue_stats(stats(hit))).await.ready, 1);

    cluster.kill(&victim);
    let error = store.queue_stats(stats(hit)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let claimed = insist(|| store.claim(ask_any(9))).await;
    let commands: HashSet<_> = claimed.tasks.iter().map(|task| task.command.as_str()).collect();
    assert!(spared.iter().all(|name| commands.contains(name)), "{spared:?} {commands:?}");
    store.close().await.unwrap();
    let error = store.queue_stats(stats(spared[0])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_come_again_from_another_node() {
    let mut cluster = Cluster::start_with_replicas();
    let (here, elsewhere) = (store(&cluster).await, store(&cluster).await);
    hears_of_tasks(&elsewhere, &here).await;
    let listens = redis::cmd("PUBSUB").arg(&["NUMSUB", "codeq:x:events"]).clone();
    let heard_from = cluster.nodes().into_iter().find(|addr| {
        let (_, count): (String, u32) = listens.query(&mut cluster.connection(addr)).unwrap();
        count > 0
    });
    cluster.kill(&heard_from.unwrap());
    interrupted(&elsewhere).await;
    hears_of_tasks(&elsewhere, &here).await;
}

#[tokio::test]
async fn nodes_that_forgot_the_scripts_are_taught_again() {
    let cluster = Cluster::start();
    let store = store(&cluster).await;
    store.put(task("1")).await;
    for addr in cluster.nodes() {
        let () = redis::cmd("SCRIPT").arg("FLUSH").query(&mut cluster.connection(&addr)).unwrap();
    }
    store.put(task("2")).await;
    assert_eq!(store.take_ids(9).await, ["1", "2"]);
}

#[tokio::test]
async fn settings_that_do_not_fit_the_servers_are_named() {
    let (cluster, server) = (Cluster::start_guarded("secret"), Server::start());
    let right = || Config { password: "secret".into(), ..config(&cluster) };
    let some = Config { nodes: vec!["127.0.0.1:1".into(), cluster.nodes()[1].clone()], ..right() };
    open(some).await.unwrap().put(task("t")).await;

    for password in ["", "wrong"] {
        let error = refusal(Config { password: password.into(), ..right() }).await;
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
        assert!(error.to_string().contains("persistenceConfig.password"), "{error}");
    }
    let codeqs =
        Config { addr: cluster.nodes()[0].clone(), password: "secret".into(), ..Config::default() };
    let error = refusal(codeqs).await;
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    assert!(error.to_string().starts_with("persistenceConfig.keyLayout is `codeq`"), "{error}");
    let error = refusal(Config { nodes: vec![server.addr()], ..config(&cluster) }).await;
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    assert!(error.to_string().starts_with("persistenceConfig.keyLayout is `cluster`"), "{error}");
    let error = refusal(Config { nodes: vec!["127.0.0.1:1".into()], ..right() }).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("persistenceConfig.nodes"), "{error}");
    let stranger = Server::with(&["--cluster-enabled", "yes"]);
    let error = refusal(Config { nodes: vec![stranger.addr()], ..config(&cluster) }).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("form the cluster"), "{error}");
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_set_aside_and_comes_back_mended() {
    let cluster = Cluster::start();
    let store = store(&cluster).await;
    for id in ["1", "2"] {
        store.put(task(id)).await;
    }
    let mut node = cluster.connection(&cluster.owner(cluster.slot("{mail:a}")));
    let right: String = node.hget("codeq:{mail:a}:tasks", "1").unwrap();
    let () = node.hset("codeq:{mail:a}:tasks", "1", "{").unwrap();
    assert_eq!(store.take_ids(9).await, ["2"]);
    assert_eq!(store.one("1").await.unwrap_err().kind(), ErrorKind::Corrupt);
    let () = node.hset("codeq:{mail:a}:tasks", "1", right).unwrap();
    let back = async {
        while store.take_ids(1).await != ["1"] {
            store.move_due_delayed(1).await.unwrap();
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LIMIT, back).await.unwrap();
}
