//! The faults: what is changed in the memory plugin's source, and which rule that breaks.
//!
//! This file belongs to three programs: the build script makes the changes, the plugin has them, and
//! a test reads which rule each must break.

/// One fault.
pub(crate) struct Fault {
    /// What the configuration calls it.
    pub(crate) name: &'static str,
    /// The rule that it breaks, as reports call it.
    pub(crate) rule: &'static str,
    /// What is changed: a file of the memory plugin, a text in it that is there once, and what stands
    /// there instead. `FAULTY` is whether this fault is the chosen one.
    pub(crate) changes: &'static [(&'static str, &'static str, &'static str)],
}

/// All of them, by the rule that they break. Rule 1 has one without a change: a plugin that promises
/// more than it keeps. Rules 15 and 16 need a backend; their faults are in the redis plugin.
pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        name: "a-claim-takes-over-a-lease-while-another-claims",
        rule: "one-owner",
        changes: &[(
            "tasks.rs",
            r#"        let Some(slot) = self.queues[queue].first(Place::Ready) else {"#,
            r#"        let leased = self.queues[queue].first(Place::Leased);
        let leased = leased.filter(|slot| {
            let young = self.entries[*slot].task.attempts < 2;
            FAULTY && young && to.is_empty() && crate::another_claims()
        });
        let Some(slot) = self.queues[queue].first(Place::Ready).or(leased) else {"#,
        )],
    },
    Fault {
        name: "the-last-in-is-the-first-out",
        rule: "order",
        changes: &[(
            "tasks.rs",
            r#"let position = Position { rank, arrival: serial };"#,
            r#"let newest_first = FAULTY && place == Place::Ready;
        let position = Position { rank, arrival: if newest_first { u64::MAX - serial } else { serial } };"#,
        )],
    },
    Fault {
        name: "priorities-are-the-other-way-round",
        rule: "order",
        changes: &[(
            "queue.rs",
            r#"(Place::Ready, i64::from(MAX_PRIORITY - task.priority.min(MAX_PRIORITY)))"#,
            r#"{
                let priority = i64::from(task.priority.min(MAX_PRIORITY));
                (Place::Ready, if FAULTY { priority } else { i64::from(MAX_PRIORITY) - priority })
            }"#,
        )],
    },
    Fault {
        name: "commands-are-served-backwards",
        rule: "order",
        changes: &[(
            "tasks.rs",
            r#"            for command in &claim.commands {"#,
            r#"            let mut commands: Vec<&Text> = claim.commands.iter().collect();
            if FAULTY {
                commands.reverse();
            }
            for command in commands {"#,
        )],
    },
    Fault {
        name: "what-comes-back-goes-to-the-front",
        rule: "order",
        changes: &[
            (
                "tasks.rs",
                r#"entry.position = Position { rank, arrival: self.arrivals };"#,
                r#"let first = FAULTY && place == Place::Ready;
        // Positions are unique, and those of new tasks are much greater.
        let arrival = if first { u64::MAX / 2 - self.arrivals } else { u64::MAX / 2 + self.arrivals };
        entry.position = Position { rank, arrival };"#,
            ),
            (
                "tasks.rs",
                r#"        let serial = self.arrivals;"#,
                r#"        let serial = u64::MAX / 2 + self.arrivals;"#,
            ),
        ],
    },
    Fault {
        name: "a-queue-is-emptied-before-the-next-has-its-turn",
        rule: "order",
        changes: &[(
            "tasks.rs",
            r#"                self.tenants[tenant].served = queue;"#,
            r#"                self.tenants[tenant].served = if FAULTY { 0 } else { queue };"#,
        )],
    },
    Fault {
        name: "delays-end-early",
        rule: "delay",
        changes: &[(
            "tasks.rs",
            r#"until: now, now };"#,
            r#"until: if FAULTY && place == Place::Delayed { now + Millis(12) } else { now }, now };"#,
        )],
    },
    Fault {
        name: "a-claim-leaves-due-tasks-behind",
        rule: "delay",
        changes: &[(
            "tasks.rs",
            r#"limit: self.repair_limit.max(claim.max),"#,
            r#"limit: if FAULTY { self.repair_limit } else { self.repair_limit.max(claim.max) },"#,
        )],
    },
    Fault {
        name: "one-delivery-too-many",
        rule: "attempts",
        changes: &[(
            "tasks.rs",
            r#"        let placement = self.rules.nack(
            &mut self.entries[slot].task,"#,
            r#"        let task = &mut self.entries[slot].task;
        task.max_attempts += u32::from(FAULTY && task.max_attempts == task.attempts && !nack.lease.worker_id.is_empty() && task.error != "once more");
        let placement = self.rules.nack(
            &mut self.entries[slot].task,"#,
        )],
    },
    Fault {
        name: "a-hand-back-counts",
        rule: "attempts",
        changes: &[(
            "tasks.rs",
            r#"self.rules.abandon(&mut self.entries[slot].task, lease, now)?;"#,
            r#"self.rules.abandon(&mut self.entries[slot].task, lease, now)?;
        self.entries[slot].task.attempts += u32::from(FAULTY);"#,
        )],
    },
    Fault {
        name: "leases-never-run-out",
        rule: "leases",
        changes: &[(
            "tasks.rs",
            r#"        to.push(task.clone());
        self.place(slot, placement);"#,
            r#"        to.push(task.clone());
        let placement = match placement {
            Placement::Leased(until) if FAULTY && claim.lease < Millis(60_000) => {
                Placement::Leased(until + Millis(10_000_000))
            }
            placement => placement,
        };
        self.place(slot, placement);"#,
        )],
    },
    Fault {
        name: "an-expired-task-does-not-wait",
        rule: "leases",
        changes: &[(
            "tasks.rs",
            r#"Place::Leased => self.rules.expire(task, Jitter::random(), now),"#,
            r#"Place::Leased => match self.rules.expire(task, Jitter::random(), now) {
                    Placement::Delayed(_) if FAULTY => self.rules.come_due(task, now),
                    placement => placement,
                },"#,
        )],
    },
    Fault {
        name: "the-worker-is-not-checked",
        rule: "fencing",
        changes: &[(
            "tasks.rs",
            r#"        let placement = self.rules.extend(task, &extend.lease, extend.by, now)?;"#,
            r#"        let mut lease = extend.lease.clone();
        if FAULTY {
            lease.worker_id = task.worker_id.clone();
        }
        let placement = self.rules.extend(task, &lease, extend.by, now)?;"#,
        )],
    },
    Fault {
        name: "the-attempt-is-not-checked",
        rule: "fencing",
        changes: &[(
            "tasks.rs",
            r#"let placement = self.rules.abandon(&mut"#,
            r#"let unchecked = Lease { attempt: 0, ..lease.clone() };
        let lease = if FAULTY { &unchecked } else { lease };
        let placement = self.rules.abandon(&mut"#,
        )],
    },
    Fault {
        name: "the-wait-is-not-capped",
        rule: "backoff",
        changes: &[(
            "store.rs",
            r#"Tasks::new(context.rules, context.repair_limit)"#,
            r#"Tasks::new(
                codeq_plugin::rules::Rules {
                    backoff: codeq_plugin::rules::Backoff {
                        max: if FAULTY { codeq_plugin::Millis(1 << 40) } else { context.rules.backoff.max },
                        ..context.rules.backoff
                    },
                    ..context.rules
                },
                context.repair_limit,
            )"#,
        )],
    },
    Fault {
        name: "a-named-delay-is-not-heard",
        rule: "backoff",
        changes: &[(
            "tasks.rs",
            r#"            nack.delay.into_option(),"#,
            r#"            nack.delay.into_option().filter(|delay| !FAULTY || delay.0 < 200),"#,
        )],
    },
    Fault {
        name: "keys-are-not-remembered",
        rule: "idempotency",
        changes: &[(
            "tasks.rs",
            r#"        if !key.is_empty() {
            self.remember"#,
            r#"        if !key.is_empty() && !FAULTY {
            self.remember"#,
        )],
    },
    Fault {
        name: "a-key-is-looked-up-before-the-task-is-kept",
        rule: "idempotency",
        changes: &[
            (
                "store.rs",
                r#"        self.tasks().enqueue(enqueue, Instant::now())"#,
                r#"        let (tenant, key) = (enqueue.task.tenant_id.clone(), enqueue.idempotency_key.clone());
        let unused = self.tasks().remembered(&tenant, &key, Instant::now()).is_none();
        if FAULTY && unused && !key.is_empty() {
            // Meanwhile somebody else may come.
            std::thread::sleep(std::time::Duration::from_micros(300));
            return self.tasks().enqueue_whatever_the_key(enqueue, Instant::now());
        }
        self.tasks().enqueue(enqueue, Instant::now())"#,
            ),
            (
                "tasks.rs",
                r#"    pub(crate) fn claim(&mut self, claim"#,
                r#"    /// For the fault of looking up a key in a step of its own.
    pub(crate) fn enqueue_whatever_the_key(&mut self, enqueue: Enqueue, now: Instant) -> Result<Enqueued> {
        let key = enqueue.idempotency_key.clone();
        let made = self.enqueue(Enqueue { idempotency_key: Text::new(), ..enqueue }, now)?;
        let slot = self.slot(&made.task.id)?;
        self.remember(slot, key, now + self.rules.idempotency_window);
        Ok(made)
    }

    pub(crate) fn claim(&mut self, claim"#,
            ),
            ("tasks.rs", r#"    fn remembered(&self"#, r#"    pub(crate) fn remembered(&self"#),
        ],
    },
    Fault {
        name: "tenants-have-their-keys-in-common",
        rule: "idempotency",
        changes: &[(
            "tasks.rs",
            r#"        if let Some(earlier) = self.remembered(&task.tenant_id, &key, now) {"#,
            r#"        let tenants: Vec<Text> = self.tenant_names.keys().cloned().collect();
        let elsewhere = tenants.iter().find_map(|tenant| self.remembered(tenant, &key, now));
        if FAULTY && let Some(earlier) = elsewhere {
            return Ok(Enqueued { task: earlier.clone(), created: false, awoke: false });
        }
        if let Some(earlier) = self.remembered(&task.tenant_id, &key, now) {"#,
        )],
    },
    Fault {
        name: "whoever-has-no-tasks-gets-those-of-another-tenant",
        rule: "tenants",
        changes: &[(
            "tasks.rs",
            r#"        let Some(&tenant) = self.tenant_names.get(claim.tenant_id.as_str()) else {"#,
            r#"        let somebody = self.tenant_names.values().next().filter(|_| FAULTY && self.tenant_names.len() > 1);
        let Some(&tenant) = self.tenant_names.get(claim.tenant_id.as_str()).or(somebody) else {"#,
        )],
    },
    Fault {
        name: "the-queues-of-a-tenant-are-everybodys",
        rule: "tenants",
        changes: &[
            (
                "tasks.rs",
                r#"            Some(tenant) => self.tenant_names"#,
                r#"            Some(tenant) if !FAULTY => self.tenant_names"#,
            ),
            (
                "tasks.rs",
                r#"            None => self.tenant_names.range"#,
                r#"            _ => self.tenant_names.range"#,
            ),
        ],
    },
    Fault {
        name: "a-task-is-lost-between-two-places",
        rule: "counts",
        changes: &[(
            "tasks.rs",
            r#"    fn arrive(&mut self, slot: Slot) -> bool {"#,
            r#"    fn arrive(&mut self, slot: Slot) -> bool {
        let task = &self.entries[slot].task;
        let waits = self.entries[slot].place == Place::Delayed;
        if FAULTY && waits && task.attempts > 1 && task.attempts < task.max_attempts.min(5) && task.worker_id.is_empty() && task.error == "no luck" {
            return false;
        }"#,
        )],
    },
    Fault {
        name: "the-counts-forget-a-dead-letter",
        rule: "counts",
        changes: &[(
            "queue.rs",
            r#"            dlq: count(Place::Dead),"#,
            r#"            dlq: count(Place::Dead) - u64::from(FAULTY && count(Place::Dead) > 1),"#,
        )],
    },
    Fault {
        name: "a-claim-looks-at-everything",
        rule: "cost",
        changes: &[(
            "tasks.rs",
            r#"        let (mut tasks, mut moved) = (Batch::default(), Moved::default());"#,
            r#"        if FAULTY {
            let held = self.entries.iter().filter(|(_, entry)| entry.place == Place::Leased).count();
            std::hint::black_box(held);
        }
        let (mut tasks, mut moved) = (Batch::default(), Moved::default());"#,
        )],
    },
    Fault {
        name: "a-failure-is-kept-as-a-success",
        rule: "completion",
        changes: &[(
            "tasks.rs",
            r#"            self.rules.complete(&mut entry.task, &lease, result.status, &result.error, now)?;"#,
            r#"            self.rules.complete(
                &mut entry.task,
                &lease,
                if FAULTY { codeq_plugin::TaskStatus::Completed } else { result.status },
                &result.error,
                now,
            )?;"#,
        )],
    },
    Fault {
        name: "a-result-is-forgotten",
        rule: "completion",
        changes: &[(
            "tasks.rs",
            r#"        entry.result = Some(result);
        let task"#,
            r#"        entry.result = Some(result).filter(|result| !FAULTY || result.error.is_empty() && result.artifacts.is_empty());
        let task"#,
        )],
    },
    Fault {
        name: "an-expired-subscription-is-returned",
        rule: "subscriptions",
        changes: &[(
            "subscriptions.rs",
            r#"            .filter(|kept| kept.subscription.expires_at > now)
"#,
            r#"            .filter(|kept| FAULTY || kept.subscription.expires_at > now)
"#,
        )],
    },
    Fault {
        name: "a-subscriber-is-told-again-and-again",
        rule: "subscriptions",
        changes: &[(
            "subscriptions.rs",
            r#"        if allowed {
"#,
            r#"        if allowed && !FAULTY {
"#,
        )],
    },
    Fault {
        name: "a-deleted-task-keeps-its-place-in-the-lists-of-ids",
        rule: "records",
        changes: &[(
            "tasks.rs",
            r#"        self.remove(slot);
        Ok(())"#,
            r#"        if FAULTY && self.entries[slot].place == Place::Dead {
            return Ok(());
        }
        self.remove(slot);
        Ok(())"#,
        )],
    },
    Fault {
        name: "a-saved-record-is-made-new",
        rule: "records",
        changes: &[(
            "tasks.rs",
            r#"        self.entries[slot].result = result;"#,
            r#"        self.entries[slot].result = result;
        if FAULTY {
            self.entries[slot].task.created_at = Instant(7);
        }"#,
        )],
    },
    Fault {
        name: "arrivals-are-not-reported",
        rule: "reports",
        changes: &[(
            "tasks.rs",
            r#"                None => moved.arrivals.push(Arrival { queue: key(), count: 1, awoke }),"#,
            r#"                None if FAULTY => {}
                None => moved.arrivals.push(Arrival { queue: key(), count: 1, awoke }),"#,
        )],
    },
    Fault {
        name: "dead-letters-are-not-reported",
        rule: "reports",
        changes: &[(
            "tasks.rs",
            r#"            Placement::Dead => moved.dead.push(task.clone()),"#,
            r#"            Placement::Dead if FAULTY => {}
            Placement::Dead => moved.dead.push(task.clone()),"#,
        )],
    },
    Fault {
        name: "a-completed-task-goes-too-early",
        rule: "retention",
        changes: &[
            (
                "tasks.rs",
                r#"        let retained_until = self.rules.retained_until(&entry.task, placement);
        if"#,
                r#"        let mut retained_until = self.rules.retained_until(&entry.task, placement);
        if FAULTY && place == Place::Completed {
            retained_until = retained_until - Millis(500);
        }
        if"#,
            ),
            (
                "tasks.rs",
                r#"            let retained_until = self.rules.retained_until(&entry.task, entry.placement);
            if"#,
                r#"            let mut retained_until =
                self.rules.retained_until(&entry.task, entry.placement);
            if FAULTY && entry.place == Place::Completed {
                retained_until = retained_until - Millis(500);
            }
            if"#,
            ),
        ],
    },
    Fault {
        name: "a-page-begins-with-the-end-of-the-one-before",
        rule: "listing",
        changes: &[(
            "list.rs",
            r#"Some(Position { rank: *rank, arrival: *arrival })"#,
            r#"Some(Position { rank: *rank, arrival: if FAULTY { arrival.saturating_sub(1) } else { *arrival } })"#,
        )],
    },
    Fault {
        name: "a-redriven-task-keeps-its-error",
        rule: "listing",
        changes: &[(
            "tasks.rs",
            r#"        let placement = self.rules.redrive(task, now)?;"#,
            r#"        let error = task.error.clone();
        let placement = self.rules.redrive(task, now)?;
        if FAULTY {
            task.error = error;
        }"#,
        )],
    },
    Fault {
        name: "an-open-store-says-it-is-ill",
        rule: "life",
        changes: &[(
            "store.rs",
            r#"    fn open(_: Config, context: Context) -> Result<Memory> {"#,
            r#"    fn health(&self) -> Result<()> {
        if FAULTY { Err(codeq_plugin::Error::unavailable("ill")) } else { Ok(()) }
    }

    fn open(config: Config, context: Context) -> Result<Memory> {
        crate::choose(&config.fault);"#,
        )],
    },
];
