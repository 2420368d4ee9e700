//! The operations on results.

use codeq_plugin::{
    Answers, AsyncResultStorage, Boxed, Complete, Completed, Finish, TaskResult, Text,
};

use crate::{Sqlite, tasks::each};

impl AsyncResultStorage for Sqlite {
    async fn save_result(&self, batch: Vec<Boxed<TaskResult>>) -> Answers<()> {
        self.write(move |engine| each(&batch, |result| engine.save_result(result))).await
    }

    async fn get_result(&self, ids: Vec<Text>) -> Answers<Boxed<TaskResult>> {
        self.read(move |view| each(&ids, |id| view.result(id))).await
    }

    async fn update_task_on_complete(&self, batch: Vec<Finish>) -> Answers<()> {
        self.write(move |engine| each(&batch, |finish| engine.finish_task(finish))).await
    }

    async fn remove_from_inprog_and_clear_lease(&self, ids: Vec<Text>) -> Answers<()> {
        self.write(move |engine| each(&ids, |id| engine.release(id))).await
    }

    async fn complete(&self, batch: Vec<Complete>) -> Answers<Completed> {
        self.write(move |engine| each(&batch, |complete| engine.complete(complete))).await
    }
}
