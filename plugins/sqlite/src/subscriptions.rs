//! The operations on subscriptions.

use codeq_plugin::{
    AllowNotify, Answers, AsyncSubscriptionStorage, Boxed, ByCommand, ByWorker, GroupKey, Renew,
    Result, Subscription, Unregister,
};

use crate::{Sqlite, tasks::each};

impl AsyncSubscriptionStorage for Sqlite {
    async fn register(&self, batch: Vec<Boxed<Subscription>>) -> Answers<()> {
        self.write(move |engine| each(&batch, |subscription| engine.register(subscription))).await
    }

    async fn renew(&self, batch: Vec<Renew>) -> Answers<Boxed<Subscription>> {
        self.write(move |engine| each(&batch, |renew| engine.renew(renew))).await
    }

    async fn unregister(&self, batch: Vec<Unregister>) -> Answers<u32> {
        self.write(move |engine| each(&batch, |unregister| engine.unregister(unregister))).await
    }

    async fn get_by_command(&self, by: ByCommand) -> Result<Vec<Boxed<Subscription>>> {
        self.read(move |view| view.subscriptions_to(&by)).await
    }

    async fn get_by_worker(&self, by: ByWorker) -> Result<Vec<Boxed<Subscription>>> {
        self.read(move |view| view.subscriptions_of(&by)).await
    }

    async fn allow_notify(&self, batch: Vec<AllowNotify>) -> Answers<bool> {
        self.write(move |engine| each(&batch, |ask| engine.allow_notify(ask))).await
    }

    async fn next_group_index(&self, batch: Vec<GroupKey>) -> Answers<u64> {
        self.write(move |engine| each(&batch, |group| engine.next_group_index(group))).await
    }

    async fn remove_expired(&self, limit: u32) -> Result<u32> {
        self.write(move |engine| engine.remove_expired(limit)).await
    }
}
