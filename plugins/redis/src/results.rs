//! The operations on results.

use codeq_plugin::{Answers, Boxed, Complete, Completed, Error, Finish, TaskResult, Text};
use redis::FromRedisValue;

use crate::{
    backend::Backend,
    record,
    reply::{itself, merged},
    scripts,
};

impl Backend {
    pub(crate) async fn save_result(&self, batch: Vec<Boxed<TaskResult>>) -> Answers<()> {
        let records = batch.iter().map(|result| record::result(result, &self.caller.zone));
        let records: Vec<_> = records.collect();
        let mut call = self.call(&scripts::SAVE_RESULT);
        let mut sent = Vec::new();
        for (result, text) in batch.iter().zip(&records) {
            if let Ok(text) = text {
                call = call.text(&result.task_id).text(text);
                sent.push(result.task_id.clone());
            }
        }
        let answers = self.run(call).await?.answers(&sent, 1, itself, |_, _, _| Ok(()))?;
        Ok(merged(records, answers))
    }

    pub(crate) async fn get_result(&self, ids: Vec<Text>) -> Answers<Boxed<TaskResult>> {
        let mut command = redis::cmd("HMGET");
        command.arg(self.scope.results());
        for id in &ids {
            command.arg(id.as_str());
        }
        let found = self.connection.send("get_result", self.scope.slot(), &command, None).await?;
        let found = Vec::<Option<Vec<u8>>>::from_redis_value(found)
            .map_err(|error| Error::internal("results cannot be read").because(&error))?;
        let missing = |id: &Text| Error::not_found(format!("task {id} has no result"));
        let read = |(id, json): (&Text, Option<Vec<u8>>)| {
            record::read_result(id, &json.ok_or_else(|| missing(id))?)
        };
        Ok(ids.iter().zip(found).map(read).collect())
    }

    pub(crate) async fn update_task_on_complete(&self, batch: Vec<Finish>) -> Answers<()> {
        let checked: Vec<_> =
            batch.iter().map(|finish| final_state(finish.status, &finish.task_id)).collect();
        let mut call = self.call(&scripts::FINISH);
        let mut sent = Vec::new();
        for (finish, state) in batch.iter().zip(&checked) {
            if state.is_ok() {
                call = call
                    .text(&finish.task_id)
                    .text(finish.status.as_str())
                    .text(&record::json(finish.error.as_str()))
                    .text(&record::json(finish.result_key.as_str()));
                sent.push(finish.task_id.clone());
            }
        }
        let answers = self.run(call).await?.answers(&sent, 1, itself, |_, _, _| Ok(()))?;
        Ok(merged(checked, answers))
    }

    pub(crate) async fn remove_from_inprog_and_clear_lease(&self, ids: Vec<Text>) -> Answers<()> {
        let mut call = self.call(&scripts::CLEAR_LEASE);
        for id in &ids {
            call = call.text(id);
        }
        self.run(call).await?.answers(&ids, 1, itself, |_, _, _| Ok(()))
    }

    pub(crate) async fn complete(&self, batch: Vec<Complete>) -> Answers<Completed> {
        let records: Vec<_> = batch
            .iter()
            .map(|complete| {
                final_state(complete.result.status, &complete.lease.task_id)?;
                of_its_task(complete)?;
                record::result(&complete.result, &self.caller.zone)
            })
            .collect();
        let sent: Vec<(&Complete, &String)> = batch
            .iter()
            .zip(&records)
            .filter_map(|(complete, record)| Some((complete, record.as_ref().ok()?)))
            .collect();
        let call = self.call(&scripts::COMPLETE).leases(&sent);
        let answers =
            self.run(call).await?.answers(&sent, 1, completed, |(complete, _), answer, _| {
                Ok(Completed { task: answer.task(&complete.lease.task_id)? })
            })?;
        Ok(merged(records, answers))
    }
}

/// The id that an error about a completion names.
fn completed<'a>((complete, _): &'a (&Complete, &String)) -> &'a str {
    &complete.lease.task_id
}

fn of_its_task(Complete { lease, result }: &Complete) -> Result<(), Error> {
    if result.task_id == lease.task_id {
        return Ok(());
    }
    Err(Error::invalid_argument(format!(
        "the result is that of task {}, the lease is on task {}",
        result.task_id, lease.task_id
    )))
}

fn final_state(status: codeq_plugin::TaskStatus, id: &str) -> Result<(), Error> {
    if status.is_terminal() {
        return Ok(());
    }
    Err(Error::invalid_argument(format!(
        "task {id} cannot be finished as {status}: use COMPLETED or FAILED"
    )))
}
