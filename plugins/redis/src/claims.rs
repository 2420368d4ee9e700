//! Claims: those of several workers in one script, which serves them in their order.

use codeq_plugin::{
    Answers, Batch, Boxed, Claim, Claimed, Moved, Optional, Result, Task, queue_name, rules,
};

use crate::{backend::Backend, call::Call, record, reply::Reply, scripts};

/// At most how many tasks one claim takes, so that no claim keeps the server for itself.
pub(crate) const MOST_CLAIMED: u32 = 1000;

/// A claim, and what it got so far.
struct Taker {
    claim: Claim,
    tasks: Batch<Boxed<Task>>,
}

impl Backend {
    pub(crate) async fn claim(&self, claims: Vec<Claim>) -> Answers<Claimed> {
        let (taken, moved) = self.take(claims).await?;
        Ok(reported(taken, moved))
    }

    /// Claims, and tells separately what was moved for all of them.
    pub(crate) async fn take(
        &self,
        claims: Vec<Claim>,
    ) -> Result<(Vec<Result<Batch<Boxed<Task>>>>, Moved)> {
        let checked = claims.into_iter().map(|claim| match rules::check_lease(claim.lease) {
            Ok(()) => Ok(Taker { claim, tasks: Batch::default() }),
            Err(error) => Err(error),
        });
        let mut takers: Vec<Result<Taker>> = checked.collect();
        let mut moved = Moved::default();
        let mut wanting: Vec<&mut Taker> = takers.iter_mut().flatten().collect();
        let mut first = true;
        // Again only for those to whom records were handed that cannot be read.
        while !wanting.is_empty() {
            match self.hand_out(wanting, &mut moved).await {
                Ok(unlucky) => wanting = unlucky,
                // What was claimed before is the workers' already.
                Err(_) if !first => break,
                Err(error) => return Err(error),
            }
            first = false;
        }
        Ok((takers.into_iter().map(|taker| taker.map(|taker| taker.tasks)).collect(), moved))
    }

    /// Claims what takers lack. Answers those who were handed a record that cannot be read, which is out
    /// of the way now.
    async fn hand_out<'a>(
        &self,
        takers: Vec<&'a mut Taker>,
        moved: &mut Moved,
    ) -> Result<Vec<&'a mut Taker>> {
        let groups = groups_of(takers);
        let call = groups.iter().fold(self.call(&scripts::CLAIM), add_group);
        let mut reply = self.run(call).await?;
        let (mut unreadable, mut unlucky) = (Vec::new(), Vec::new());
        for taker in groups.into_iter().flatten() {
            let before = unreadable.len();
            read_claimed(&mut reply, &mut taker.tasks, &mut unreadable)?;
            if unreadable.len() > before {
                unlucky.push(taker);
            }
        }
        add_moved(moved, reply.moved()?);
        if !unreadable.is_empty() {
            let mut call = self.call(&scripts::QUARANTINE);
            for id in &unreadable {
                record::report_unreadable(self.scope.tasks(), &String::from_utf8_lossy(id));
                call = call.bytes(id);
            }
            // If that fails, they come back when their leases are over, and are met again.
            if self.run(call).await.is_err() {
                unlucky.clear();
            }
        }
        Ok(unlucky)
    }
}

/// What each claim got; the first one also tells what was moved on the way.
pub(crate) fn reported(
    taken: Vec<Result<Batch<Boxed<Task>>>>,
    moved: Moved,
) -> Vec<Result<Claimed>> {
    let mut moved = Some(moved);
    let mut claimed = |tasks| Claimed { tasks, moved: moved.take().unwrap_or_default().reported() };
    taken.into_iter().map(|taken| taken.map(&mut claimed)).collect()
}

/// Takers that want the same, each group in the order in which they came.
fn groups_of(takers: Vec<&mut Taker>) -> Vec<Vec<&mut Taker>> {
    let mut groups: Vec<Vec<&mut Taker>> = Vec::new();
    for taker in takers {
        let wants_the_same = |group: &&mut Vec<&mut Taker>| {
            let other = &group[0].claim;
            other.tenant_id == taker.claim.tenant_id && other.commands == taker.claim.commands
        };
        match groups.iter_mut().find(wants_the_same) {
            Some(group) => group.push(taker),
            None => groups.push(vec![taker]),
        }
    }
    groups
}

fn add_group(call: Call, takers: &Vec<&mut Taker>) -> Call {
    let Some(Taker { claim, .. }) = takers.first() else { return call };
    let mut call = call.text(&claim.tenant_id).count(claim.commands.len());
    for command in &claim.commands {
        call = call.text(&queue_name(command));
    }
    call = call.count(takers.len());
    for Taker { claim, tasks } in takers {
        let already = u32::try_from(tasks.len()).unwrap_or(u32::MAX);
        call = call
            .text(&claim.worker_id)
            .text(&record::json(claim.worker_id.as_str()))
            .number(claim.max.min(MOST_CLAIMED).saturating_sub(already))
            .millis(claim.lease);
    }
    call
}

/// Reads the tasks that a taker was handed, and notes the ids of those whose record cannot be read.
fn read_claimed(
    reply: &mut Reply,
    tasks: &mut Batch<Boxed<Task>>,
    unreadable: &mut Vec<Vec<u8>>,
) -> Result<()> {
    let deadline = reply.instant()?;
    for _ in 0..reply.number::<usize>()? {
        let (id, json) = (reply.bytes()?, reply.bytes()?);
        match record::read_task(&String::from_utf8_lossy(&id), &json) {
            Ok(mut task) => {
                task.lease_until = Optional::RSome(deadline);
                tasks.push(task);
            }
            Err(_) => unreadable.push(id),
        }
    }
    Ok(())
}

pub(crate) fn add_moved(moved: &mut Moved, more: Moved) {
    moved.count += more.count;
    moved.arrivals.extend(more.arrivals);
    moved.expired.extend(more.expired);
    moved.dead.extend(more.dead);
    moved.next = more.next;
}
