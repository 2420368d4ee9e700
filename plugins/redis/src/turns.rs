//! Claims in a cluster, and whose turn it is.
//!
//! A claim that names its commands asks their queues in that order. For claims of any command there is a
//! list of queues for each tenant, those that may have claimable tasks, by when they were served last. Whoever
//! puts a task into a queue that had none adds it before he answers; whoever claims takes some from the
//! front, puts them to the end, and asks them all at once, each for its share. A queue that had less than its
//! share leaves the list, unless it got a new place meanwhile. If a host dies before it adds a queue, the
//! next look at all queues does.

use std::collections::{HashMap, HashSet};

use codeq_plugin::{
    Answers, Batch, Boxed, Claim, Claimed, Error, Moved, Result, Task, Text, rules,
};
use futures_util::future::join_all;

use crate::{
    claims::{MOST_CLAIMED, add_moved, reported},
    cluster::Cluster,
    keys::{Scope, turns},
    pointers::read,
    queues::Chore,
    scripts,
};

/// How many queues a claim of any command asks at a time.
const ASKED_AT_ONCE: usize = 16;
/// How often a claim of any command looks for queues, at most.
const MOST_ROUNDS: usize = 64;

/// Claims that want the same, and what they got so far.
struct Claims {
    claims: Vec<Claim>,
    tasks: Vec<Vec<Boxed<Task>>>,
    moved: Moved,
    failure: Option<Error>,
}

/// How much of one queue each of some claims is to get.
struct Share {
    scope: Scope,
    wanted: Vec<(usize, u32)>,
}

/// The tags of queues that had less than they were asked for, and of those that could not answer.
#[derive(Default)]
struct Asked {
    drained: Vec<String>,
    failed: Vec<String>,
}

impl Claims {
    fn new(claims: Vec<Claim>) -> Claims {
        let tasks = claims.iter().map(|_| Vec::new()).collect();
        Claims { claims, tasks, moved: Moved::default(), failure: None }
    }

    /// What each claim still lacks.
    fn lacks(&self) -> Vec<(usize, u32)> {
        let lacks = self.claims.iter().zip(&self.tasks).enumerate().map(|(n, (claim, tasks))| {
            let got = u32::try_from(tasks.len()).unwrap_or(u32::MAX);
            (n, claim.max.min(MOST_CLAIMED).saturating_sub(got))
        });
        lacks.filter(|(_, lacks)| *lacks > 0).collect()
    }

    /// What the claims lack, in equal parts from some queues.
    fn shares(&self, scopes: Vec<Scope>) -> Vec<Share> {
        let mut lacks = self.lacks();
        let mut left: u32 = lacks.iter().map(|(_, lacks)| lacks).sum();
        let mut queues = u32::try_from(scopes.len()).unwrap_or(u32::MAX);
        let mut shares = Vec::new();
        for scope in scopes {
            let mut share = left.div_ceil(queues.max(1));
            (left, queues) = (left - share, queues.saturating_sub(1));
            let mut wanted = Vec::new();
            for (n, lacks) in &mut lacks {
                let part = share.min(*lacks);
                if part > 0 {
                    wanted.push((*n, part));
                }
                (share, *lacks) = (share - part, *lacks - part);
            }
            if !wanted.is_empty() {
                shares.push(Share { scope, wanted });
            }
        }
        shares
    }

    /// Hands out what several queues gave, one task from each in turn.
    fn add(&mut self, given: Vec<HashMap<usize, Vec<Boxed<Task>>>>) {
        for (n, tasks) in self.tasks.iter_mut().enumerate() {
            let mut given: Vec<_> = given
                .iter()
                .map(|given| given.get(&n).map_or(&[][..], Vec::as_slice).iter().cloned())
                .collect();
            loop {
                let before = tasks.len();
                tasks.extend(given.iter_mut().filter_map(Iterator::next));
                if tasks.len() == before {
                    break;
                }
            }
        }
    }

    /// A claim that got something has succeeded, whatever else failed.
    fn answers(self) -> Vec<Result<Claimed>> {
        let Claims { tasks, moved, failure, .. } = self;
        let taken = tasks.into_iter().map(|tasks| match &failure {
            Some(failure) if tasks.is_empty() => Err(failure.clone()),
            _ => Ok(tasks.into_iter().collect::<Batch<_>>()),
        });
        reported(taken.collect(), moved)
    }
}

impl Cluster {
    pub(crate) async fn claim(&self, claims: Vec<Claim>) -> Answers<Claimed> {
        let mut answers: Vec<Result<Claimed>> = Vec::new();
        let mut alike: Vec<(Vec<usize>, Vec<Claim>)> = Vec::new();
        let mut groups: HashMap<(Text, Vec<Text>), usize> = HashMap::new();
        for (index, claim) in claims.into_iter().enumerate() {
            answers.push(rules::check_lease(claim.lease).map(|()| Claimed::default()));
            if answers[index].is_err() {
                continue;
            }
            let wanted = (claim.tenant_id.clone(), claim.commands.iter().cloned().collect());
            let group = *groups.entry(wanted).or_insert_with(|| {
                alike.push((Vec::new(), Vec::new()));
                alike.len() - 1
            });
            alike[group].0.push(index);
            alike[group].1.push(claim);
        }
        let claimed = alike
            .into_iter()
            .map(|(indices, claims)| async { (indices, self.claim_alike(claims).await) });
        for (indices, claimed) in join_all(claimed).await {
            for (index, claimed) in indices.into_iter().zip(claimed) {
                answers[index] = claimed;
            }
        }
        Ok(answers)
    }

    /// Serves claims of one tenant that name the same commands.
    async fn claim_alike(&self, claims: Vec<Claim>) -> Vec<Result<Claimed>> {
        let Some(Claim { tenant_id, commands, .. }) = claims.first().cloned() else {
            return Vec::new();
        };
        let mut claims = Claims::new(claims);
        if commands.is_empty() {
            self.claim_any(&tenant_id, &mut claims).await;
        } else {
            for command in &commands {
                let scope = self.queues.scope(command, &tenant_id);
                let shares = claims.shares(vec![scope]);
                self.claim_shares(&mut claims, &shares, true).await;
            }
        }
        claims.answers()
    }

    async fn claim_any(&self, tenant: &str, claims: &mut Claims) {
        let lacks: u32 = claims.lacks().iter().map(|(_, lacks)| lacks).sum();
        let limit = self.caller.repair_limit().max(lacks);
        for chore in [Chore::Due, Chore::Expiring] {
            match self.repair(chore, limit, Some(tenant)).await {
                Ok(moved) => add_moved(&mut claims.moved, moved),
                Err(error) => claims.failure = Some(error),
            }
        }
        let mut over = HashSet::new();
        for _ in 0..MOST_ROUNDS {
            let lacks: usize = claims.lacks().iter().map(|(_, lacks)| *lacks as usize).sum();
            let turns = match self.next_turns(tenant, lacks.min(ASKED_AT_ONCE)).await {
                Ok(turns) => turns,
                Err(error) => {
                    claims.failure = Some(error);
                    return;
                }
            };
            if turns.iter().all(|turn| over.contains(turn.scope.tag())) {
                return;
            }
            let shares = claims.shares(turns.iter().map(|turn| turn.scope.clone()).collect());
            let Asked { drained, failed } = self.claim_shares(claims, &shares, false).await;
            let is_drained = |turn: &&Turn| drained.iter().any(|tag| tag == turn.scope.tag());
            self.drained(tenant, &turns.iter().filter(is_drained).collect::<Vec<_>>()).await;
            over.extend(drained.into_iter().chain(failed));
        }
    }

    /// Claims from several queues at once, each of which is repaired first if it was named.
    async fn claim_shares(&self, claims: &mut Claims, shares: &[Share], named: bool) -> Asked {
        let parts = shares.iter().map(|share| {
            let commands: Vec<Text> =
                named.then(|| share.scope.of_queue().command.clone()).into_iter().collect();
            let part = share.wanted.iter().map(|(n, max)| Claim {
                max: *max,
                commands: commands.clone().into(),
                ..claims.claims[*n].clone()
            });
            let (part, queue) = (part.collect(), self.at(&share.scope));
            async move { queue.take(part).await }
        });
        let (mut given, mut asked) = (Vec::new(), Asked::default());
        let mut awoke: Vec<&Scope> = Vec::new();
        for (share, taken) in shares.iter().zip(join_all(parts).await) {
            let (taken, moved) = match taken {
                Ok(taken) => taken,
                Err(error) => {
                    claims.failure = Some(error);
                    asked.failed.push(share.scope.tag().to_owned());
                    continue;
                }
            };
            if let Some(next) = moved.next.into_option() {
                self.queues.note(&share.scope, Chore::Due, next);
                self.queues.note(&share.scope, Chore::Expiring, next);
            }
            let mut handed = HashMap::new();
            for ((n, _), tasks) in share.wanted.iter().zip(taken) {
                let tasks: Vec<_> = tasks.unwrap_or_default().into_iter().collect();
                for task in &tasks {
                    self.pointers.insert(&task.id, &share.scope);
                }
                handed.insert(*n, tasks);
            }
            let wanted: u32 = share.wanted.iter().map(|(_, max)| max).sum();
            if handed.values().map(Vec::len).sum::<usize>() < wanted as usize {
                asked.drained.push(share.scope.tag().to_owned());
            } else if moved.arrivals.iter().any(|arrival| arrival.awoke) {
                awoke.push(&share.scope);
            }
            given.push(handed);
            add_moved(&mut claims.moved, moved);
        }
        claims.add(given);
        self.hint(awoke).await;
        asked
    }

    /// Tells claims of any command that queues have claimable tasks. If that fails they hear of it later.
    pub(crate) async fn hint<'a>(&self, scopes: impl IntoIterator<Item = &'a Scope>) {
        self.hint_as("", scopes).await;
    }

    /// The same; queues that are known to have some keep their turn.
    pub(crate) async fn hint_new<'a>(&self, scopes: impl IntoIterator<Item = &'a Scope>) {
        self.hint_as("NX", scopes).await;
    }

    async fn hint_as<'a>(&self, mode: &str, scopes: impl IntoIterator<Item = &'a Scope>) {
        let mut by_tenant: HashMap<&str, Vec<&str>> = HashMap::new();
        for scope in scopes {
            let args = by_tenant.entry(scope.tenant()).or_insert_with(|| vec![mode]);
            args.push(scope.tag());
        }
        let hints = by_tenant.into_iter().map(|(tenant, args)| async move {
            if let Err(error) = self.small(&scripts::HINT, &turns(tenant), &args).await {
                tracing::debug!(%error, "claims of any command learn of new tasks later");
            }
        });
        join_all(hints).await;
    }

    async fn next_turns(&self, tenant: &str, count: usize) -> Result<Vec<Turn>> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let answer = self.small(&scripts::NEXT_TURNS, &turns(tenant), &[count.to_string()]).await?;
        let turns: Vec<(String, String)> = read("next_turns", answer)?;
        let turns = turns
            .into_iter()
            .filter_map(|(tag, place)| Some(Turn { scope: self.queues.tagged(&tag)?, place }));
        Ok(turns.collect())
    }

    async fn drained(&self, tenant: &str, drained: &[&Turn]) {
        if drained.is_empty() {
            return;
        }
        let args: Vec<&str> =
            drained.iter().flat_map(|turn| [turn.scope.tag(), &*turn.place]).collect();
        if let Err(error) = self.small(&scripts::DRAINED, &turns(tenant), &args).await {
            tracing::debug!(%error, "queues without tasks are asked once more");
        }
    }
}

/// A queue whose turn it was, and the place it has now.
struct Turn {
    scope: Scope,
    place: String,
}
