//! The operations on subscriptions.

use codeq_plugin::{
    AllowNotify, Answers, Boxed, ByCommand, ByWorker, GroupKey, Renew, Result, Subscription,
    Unregister, queue_name,
};

use crate::{backend::Backend, record, reply::Reply, scripts};

impl Backend {
    pub(crate) async fn register(&self, batch: Vec<Boxed<Subscription>>) -> Answers<()> {
        let mut call = self.call(&scripts::REGISTER);
        for subscription in &batch {
            call = call
                .text(&subscription.id)
                .text(&subscription.tenant_id)
                .text(&record::subscription(subscription, &self.caller.zone))
                .instant(subscription.expires_at);
            call = call.count(subscription.event_types.len());
            for command in &subscription.event_types {
                call = call.text(command).text(&queue_name(command));
            }
        }
        self.run(call).await?.answers(&batch, 1, |subscription| &subscription.id, |_, _, _| Ok(()))
    }

    pub(crate) async fn renew(&self, batch: Vec<Renew>) -> Answers<Boxed<Subscription>> {
        let mut call = self.call(&scripts::RENEW);
        for renew in &batch {
            call = call
                .text(&renew.id)
                .text(&renew.worker_id)
                .text(&renew.tenant_id)
                .instant(renew.expires_at)
                .text(&record::json(&renew.expires_at.to_rfc3339_in(&self.caller.zone)));
        }
        self.run(call).await?.answers(
            &batch,
            1,
            |renew| &renew.id,
            |_, answer, _| record::read_subscription(&answer.bytes()?),
        )
    }

    pub(crate) async fn unregister(&self, batch: Vec<Unregister>) -> Answers<u32> {
        let mut call = self.call(&scripts::UNREGISTER);
        for unregister in &batch {
            call =
                call.text(&unregister.id).text(&unregister.tenant_id).text(&unregister.worker_id);
            call = call.count(unregister.commands.len());
            for command in &unregister.commands {
                call = call.text(&queue_name(command));
            }
        }
        self.run(call).await?.answers(
            &batch,
            1,
            |unregister| &unregister.id,
            |_, answer, _| answer.number(),
        )
    }

    pub(crate) async fn get_by_command(&self, by: ByCommand) -> Result<Vec<Boxed<Subscription>>> {
        let call = self.call(&scripts::SUBSCRIBERS).text(&by.tenant_id);
        subscribers(self.run(call.text("command").text(&queue_name(&by.command))).await?)
    }

    pub(crate) async fn get_by_worker(&self, by: ByWorker) -> Result<Vec<Boxed<Subscription>>> {
        let call = self.call(&scripts::SUBSCRIBERS).text(&by.tenant_id);
        subscribers(self.run(call.text("worker").text(&by.worker_id)).await?)
    }

    pub(crate) async fn allow_notify(&self, batch: Vec<AllowNotify>) -> Answers<bool> {
        let mut call = self.call(&scripts::ALLOW_NOTIFY);
        for ask in &batch {
            call = call.text(&ask.subscription_id).millis(ask.min_interval);
        }
        self.run(call).await?.answers(
            &batch,
            1,
            |ask| &ask.subscription_id,
            |_, answer, _| answer.flag(),
        )
    }

    pub(crate) async fn next_group_index(&self, batch: Vec<GroupKey>) -> Answers<u64> {
        let mut call = self.call(&scripts::NEXT_GROUP_INDEX);
        for group in &batch {
            call =
                call.text(&queue_name(&group.command)).text(&group.tenant_id).text(&group.group_id);
        }
        self.run(call).await?.answers(
            &batch,
            1,
            |group| &group.group_id,
            |_, answer, _| answer.number(),
        )
    }

    pub(crate) async fn remove_expired(&self, limit: u32) -> Result<u32> {
        self.run(self.call(&scripts::REMOVE_EXPIRED).number(limit)).await?.number()
    }
}

/// Subscriptions that cannot be read are passed over: one bad record must not silence the others.
fn subscribers(mut reply: Reply) -> Result<Vec<Boxed<Subscription>>> {
    let mut found = Vec::new();
    while !reply.is_empty() {
        match record::read_subscription(&reply.bytes()?) {
            Ok(subscription) => found.push(subscription),
            Err(error) => tracing::error!(key = "codeq:subs", %error, "passed over"),
        }
    }
    Ok(found)
}
