//! New tasks in a cluster: enqueueing them, and saving them as they are.
//!
//! What is one script in codeQ's layout takes three steps here, each on a key of another slot. An idempotency
//! key is reserved for the new task; where the task is going to be is said; then it is put there. Each step
//! names the attempt that it belongs to. Whoever finds a key reserved for a task that is not there cannot
//! know whether the other host is slow or dead. So he forbids that attempt in the queue it would come to,
//! where it is refused from then on, and takes the key over: a key gives one task, whoever dies when.

use std::{collections::HashMap, time::Duration};

use codeq_plugin::{
    Answers, Enqueue, Enqueued, Error, ErrorKind, Instant, Placed, Result, Task,
    rules::{self, Placement},
};
use futures_util::future::join_all;
use redis::Cmd;
use tokio::time::sleep;

use crate::{
    cluster::{Cluster, by_queue, is_not_found},
    keys::{Scope, escaped, reservation, unescaped},
    pointers::{Pointed, Pointer, read},
    queues::Chore,
    scripts,
};

/// For how long whoever reserved a key is left alone, so that hosts that race do not forbid each other's
/// attempts in turn.
const PATIENCE: Duration = Duration::from_millis(100);
/// How often somebody else's new task is looked for meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// For how long a forbidden attempt is refused, in milliseconds. No attempt comes as late as that.
const FORBIDDEN_FOR_MILLIS: u32 = 3_600_000;

/// A task that is to be enqueued.
struct New {
    index: usize,
    enqueue: Enqueue,
    scope: Scope,
    /// The idempotency key's own key, if there is one.
    key: Option<String>,
    attempt: String,
}

/// What to do about a new task next.
enum Next {
    Enqueue(New),
    Answer(usize, Result<Enqueued>),
}

/// What an idempotency key is reserved for.
struct Reservation {
    /// All of it, to tell whether it is another one by now.
    said: String,
    id: String,
    scope: Scope,
    attempt: String,
    age: Duration,
}

impl Cluster {
    pub(crate) async fn enqueue(&self, batch: Vec<Enqueue>) -> Answers<Enqueued> {
        let mut answers: Vec<Option<Result<Enqueued>>> = Vec::new();
        answers.resize_with(batch.len(), || None);
        let new =
            batch.into_iter().enumerate().map(|(index, enqueue)| self.new_task(index, enqueue));
        let names = |new: &New| [Some(new.enqueue.task.id.to_string()), new.key.clone()];
        for wave in waves(new, names) {
            for (index, answer) in self.enqueue_all(wave).await {
                answers[index] = Some(answer);
            }
        }
        let lost = || Err(Error::internal("an item was not answered"));
        Ok(answers.into_iter().map(|answer| answer.unwrap_or_else(lost)).collect())
    }

    pub(crate) async fn save(&self, batch: Vec<Placed>) -> Answers<()> {
        let mut answers: Vec<Result<()>> = batch.iter().map(|_| Ok(())).collect();
        let names = |(_, placed): &(usize, Placed)| [Some(placed.task.id.to_string()), None];
        for wave in waves(batch.into_iter().enumerate(), names) {
            let saved = wave
                .into_iter()
                .map(|(index, placed)| async move { (index, self.save_one(placed).await) });
            for (index, saved) in join_all(saved).await {
                answers[index] = saved;
            }
        }
        Ok(answers)
    }

    fn new_task(&self, index: usize, mut enqueue: Enqueue) -> New {
        let task = &enqueue.task;
        let scope = self.queues.scope(&task.command, &task.tenant_id);
        let key = std::mem::take(&mut enqueue.idempotency_key);
        let is_remembered = !key.is_empty() && self.rules().idempotency_window.0 > 0;
        let key = is_remembered.then(|| reservation(&enqueue.task.tenant_id, &key));
        New { index, enqueue, scope, key, attempt: attempt() }
    }

    /// Enqueues tasks whose ids and keys are all different.
    async fn enqueue_all(&self, new: Vec<New>) -> Vec<(usize, Result<Enqueued>)> {
        let (mut answers, mut wanting) = (Vec::new(), new);
        while !wanting.is_empty() {
            let prepared = join_all(wanting.into_iter().map(|new| self.prepare(new))).await;
            let mut ready = Vec::new();
            for next in prepared {
                match next {
                    Next::Enqueue(new) => ready.push(new),
                    Next::Answer(index, answer) => answers.push((index, answer)),
                }
            }
            let parts = by_queue(ready, |new| Some(new.scope.clone()));
            let parts = parts.into_iter().map(|(scope, part)| self.enqueue_part(scope, part));
            wanting = Vec::new();
            for next in join_all(parts).await.into_iter().flatten() {
                match next {
                    Next::Enqueue(new) => wanting.push(New { attempt: attempt(), ..new }),
                    Next::Answer(index, answer) => answers.push((index, answer)),
                }
            }
        }
        answers
    }

    /// Makes sure that a task may be enqueued, and is found afterwards.
    async fn prepare(&self, new: New) -> Next {
        let index = new.index;
        match self.try_to_prepare(new).await {
            Ok(next) => next,
            Err(error) => Next::Answer(index, Err(error)),
        }
    }

    async fn try_to_prepare(&self, new: New) -> Result<Next> {
        rules::check_task(&new.enqueue.task)?;
        self.register_queue(&new.scope).await?;
        if let Some(key) = &new.key
            && let Some(earlier) = self.reserve(key, &new).await?
        {
            let found = Enqueued { task: earlier, created: false, awoke: false };
            return Ok(Next::Answer(new.index, Ok(found)));
        }
        match self.say_where(&new.enqueue.task, &new.scope, &new.attempt).await {
            Ok(()) => Ok(Next::Enqueue(new)),
            Err(error) => {
                self.release(&new, &error).await;
                Err(error)
            }
        }
    }

    /// Enqueues tasks into their queue. Those whose attempt was forbidden are to be tried again.
    async fn enqueue_part(&self, scope: Scope, part: Vec<New>) -> Vec<Next> {
        let batch =
            part.iter().map(|new| (new.enqueue.clone(), Some(new.attempt.clone()))).collect();
        let answers = match self.at(&scope).try_to_enqueue(batch).await {
            Ok(answers) => answers,
            Err(error) => part.iter().map(|_| Err(error.clone())).collect(),
        };
        let mut nexts = Vec::new();
        let mut awoke = false;
        for (new, answer) in part.into_iter().zip(answers) {
            nexts.push(match answer {
                Ok(None) => Next::Enqueue(new),
                Ok(Some(enqueued)) => {
                    awoke |= enqueued.awoke;
                    if new.enqueue.visible_at > Instant::EPOCH {
                        self.queues.note(&scope, Chore::Due, new.enqueue.visible_at);
                    }
                    self.pointers.insert(&enqueued.task.id, &scope);
                    Next::Answer(new.index, Ok(enqueued))
                }
                Err(error) => {
                    self.release(&new, &error).await;
                    Next::Answer(new.index, Err(error))
                }
            });
        }
        self.hint(awoke.then_some(&scope)).await;
        nexts
    }

    /// Says where a new task is going to be. `AlreadyExists` if there is one with its id elsewhere.
    async fn say_where(&self, task: &Task, scope: &Scope, attempt: &str) -> Result<()> {
        let id = task.id.as_str();
        let mut expected = String::new();
        loop {
            let said = match self.point(id, scope, attempt, &expected).await? {
                Pointed::Newly | Pointed::Again => return Ok(()),
                Pointed::Elsewhere(said) => said,
            };
            if let Some(other) = self.queues.tagged(&said.tag)
                && self.forbid(&other, id, &said.attempt).await?
            {
                return Err(Error::already_exists(format!("there is a task {id} already")));
            }
            expected = said.said;
        }
    }

    /// Reserves an idempotency key for a new task. Answers the task that has the key already.
    async fn reserve(&self, key: &str, new: &New) -> Result<Option<codeq_plugin::Boxed<Task>>> {
        let mut expected = String::new();
        loop {
            let Some(earlier) = self.try_to_reserve(key, new, &expected).await? else {
                return Ok(None);
            };
            match self.reserved_task(&earlier).await {
                Ok(task) => return Ok(Some(task)),
                Err(error) if !is_not_found(&error) => return Err(error),
                Err(_) => {}
            }
            expected.clear();
            if earlier.age < PATIENCE {
                sleep(LOOK_EVERY).await;
                self.check_time()?;
            } else if !self.forbid(&earlier.scope, &earlier.id, &earlier.attempt).await? {
                expected = earlier.said;
            }
        }
    }

    async fn try_to_reserve(
        &self,
        key: &str,
        new: &New,
        expected: &str,
    ) -> Result<Option<Reservation>> {
        let window = self.rules().idempotency_window.0.to_string();
        let args = [&*ours(new), &window, expected];
        let answer = self.small(&scripts::RESERVE, key, &args).await?;
        let (said, age) = read::<(String, u64)>("reserve", answer)?;
        if said.is_empty() {
            return Ok(None);
        }
        match self.read_reservation(&said, Duration::from_millis(age)) {
            Some(reservation) => Ok(Some(reservation)),
            None => Err(Error::corrupt(format!("`{key}` in redis holds `{said}`: delete it"))),
        }
    }

    fn read_reservation(&self, said: &str, age: Duration) -> Option<Reservation> {
        let mut parts = said.split(' ');
        let id = unescaped(parts.next()?)?;
        let scope = self.queues.tagged(parts.next()?)?;
        let attempt = parts.next()?.to_owned();
        Some(Reservation { said: said.to_owned(), id, scope, attempt, age })
    }

    /// The task that a key is reserved for, in the queue it was enqueued into, or moved to since.
    async fn reserved_task(&self, earlier: &Reservation) -> Result<codeq_plugin::Boxed<Task>> {
        let get = |scope: Scope| async move {
            let mut tasks = self.at(&scope).get(vec![earlier.id.as_str().into()]).await?;
            tasks.pop().unwrap_or_else(|| Err(rules::not_found(&earlier.id)))
        };
        let found = get(earlier.scope.clone()).await;
        if !found.as_ref().is_err_and(is_not_found) {
            return found;
        }
        match self.look_up(&earlier.id).await? {
            // An id may be another tenant's, which is none of this tenant's business.
            Some(scope)
                if scope.tag() != earlier.scope.tag()
                    && scope.tenant() == earlier.scope.tenant() =>
            {
                get(scope).await
            }
            _ => found,
        }
    }

    /// Forbids an attempt to enqueue a task. Answers whether the task is there, and so nothing forbidden.
    async fn forbid(&self, scope: &Scope, id: &str, attempt: &str) -> Result<bool> {
        let queue = self.at(scope);
        let call = queue.call(&scripts::FORBID).text(id).text(attempt).number(FORBIDDEN_FOR_MILLIS);
        queue.run(call).await?.flag()
    }

    /// Gives a key back if nothing was enqueued with it, and surely never is.
    async fn release(&self, new: &New, error: &Error) {
        let Some(key) = &new.key else { return };
        if matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable) {
            return;
        }
        if let Err(error) = self.small(&scripts::RELEASE, key, &[ours(new)]).await {
            tracing::debug!(%error, "an idempotency key stays reserved until somebody wants it");
        }
    }

    fn check_time(&self) -> Result<()> {
        if tokio::time::Instant::now() < self.connection.deadline() {
            return Ok(());
        }
        Err(Error::unavailable("another host is just enqueueing a task with this idempotency key"))
    }

    /// Saves a task, and removes it from the queue that it was in before if that was another one.
    async fn save_one(&self, placed: Placed) -> Result<()> {
        let task = &placed.task;
        rules::check_task(task)?;
        let id = task.id.to_string();
        let scope = self.queues.scope(&task.command, &task.tenant_id);
        self.register_queue(&scope).await?;
        let before = match self.point(&id, &scope, &attempt(), "").await? {
            Pointed::Newly | Pointed::Again => None,
            Pointed::Elsewhere(said) => Some(said),
        };
        self.save_at(&scope, placed).await?;
        if let Some(said) = before {
            self.finish_moving(&id, &scope, &said).await?;
        }
        self.pointers.insert(&id, &scope);
        Ok(())
    }

    async fn save_at(&self, scope: &Scope, placed: Placed) -> Result<()> {
        let placement = rules::placement_of(&placed.task, placed.visible_at);
        let saved = self.at(scope).save(vec![placed]).await?;
        saved.into_iter().collect::<Result<Vec<()>>>()?;
        match placement {
            Placement::Ready => self.hint([scope]).await,
            Placement::Delayed(at) => self.queues.note(scope, Chore::Due, at),
            Placement::Leased(until) => self.queues.note(scope, Chore::Expiring, until),
            Placement::Dead | Placement::Done => {}
        }
        Ok(())
    }

    /// Takes the result of a task along to its new queue, says that it is there, and removes it from the old.
    async fn finish_moving(&self, id: &str, to: &Scope, said: &Pointer) -> Result<()> {
        let Some(from) = self.queues.tagged(&said.tag) else { return Ok(()) };
        let result =
            self.about_result(&from, redis::cmd("HGET").arg(from.results()).arg(id)).await?;
        if let Some(result) = read::<Option<Vec<u8>>>("get_result", result)? {
            let mut keep = redis::cmd("HSET");
            self.about_result(to, keep.arg(to.results()).arg(id).arg(result)).await?;
        }
        self.point(id, to, &attempt(), &said.said).await?;
        let removed = self.at(&from).delete(vec![id.into()]).await?;
        match removed.into_iter().next() {
            Some(Err(error)) if !is_not_found(&error) => Err(error),
            _ => Ok(()),
        }
    }

    async fn about_result(&self, scope: &Scope, command: &Cmd) -> Result<redis::Value> {
        self.connection.send("save", scope.slot(), command, None).await
    }
}

/// A name for an attempt to enqueue, which no other has.
fn attempt() -> String {
    format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..))
}

/// What a key is reserved for.
fn ours(new: &New) -> String {
    format!("{} {} {}", escaped(&new.enqueue.task.id), new.scope.tag(), new.attempt)
}

/// Items in groups in which no name comes twice, so that those of a group may be done at the same time.
/// Items that share a name keep their order.
fn waves<I>(
    items: impl IntoIterator<Item = I>,
    names: impl Fn(&I) -> [Option<String>; 2],
) -> Vec<Vec<I>> {
    let mut waves: Vec<Vec<I>> = Vec::new();
    let mut last: HashMap<(usize, String), usize> = HashMap::new();
    for item in items {
        let names = names(&item).into_iter().enumerate();
        let names: Vec<_> = names.filter_map(|(kind, name)| Some((kind, name?))).collect();
        let wave = names.iter().filter_map(|name| last.get(name)).max().map_or(0, |last| last + 1);
        last.extend(names.into_iter().map(|name| (name, wave)));
        if wave == waves.len() {
            waves.push(Vec::new());
        }
        waves[wave].push(item);
    }
    waves
}

#[cfg(test)]
mod tests {
    use super::waves;

    #[test]
    fn what_shares_a_name_comes_one_after_the_other() {
        let items = [("a", Some("k")), ("b", None), ("a", None), ("c", Some("k")), ("d", None)];
        let names =
            |item: &(&str, Option<&str>)| [Some(item.0.to_owned()), item.1.map(str::to_owned)];
        let waves = waves(items, names);
        let ids: Vec<Vec<_>> =
            waves.iter().map(|wave| wave.iter().map(|item| item.0).collect()).collect();
        assert_eq!(ids, [vec!["a", "b", "d"], vec!["a", "c"]]);
    }
}
