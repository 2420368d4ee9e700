//! Paging through tasks.
//!
//! The order is by tenant, command, place and position in that place. A task that does not change
//! keeps its position, so it is on exactly one page.

use codeq_plugin::{Error, Instant, List, ListTasks, Page, Placed, Result, Text, queue_name};
use rusqlite::params;

use crate::{
    fault::Outcome,
    place::{Place, Position},
    queues::QueueId,
    readers::View,
    reading::read_with_tenant,
    rows::{Entry, entry_columns},
};

/// Where a page ended: tenant, command, place, rank, arrival.
type Cursor = (String, String, i64, i64, i64);

impl View<'_> {
    pub(crate) fn list(&self, list: &ListTasks) -> Outcome<Page> {
        let after = read_cursor(&list.cursor)?;
        let mut tasks = List::new();
        let mut last: Option<Cursor> = None;
        if list.limit == 0 {
            return Ok(Page::default());
        }
        for (queue, tenant, command) in self.queues_from(list, after.as_ref())? {
            // The cursor counts in its own queue only.
            let resume = after.as_ref().filter(|(at, name, ..)| *at == tenant && *name == command);
            for place in Place::LISTED.into_iter().filter(|place| wanted(list, *place)) {
                let from = match resume {
                    Some((_, _, at, ..)) if place.number() < *at => continue,
                    Some((_, _, at, rank, arrival)) if place.number() == *at => {
                        Position { rank: *rank, arrival: *arrival }
                    }
                    _ => Position { rank: i64::MIN, arrival: i64::MIN },
                };
                // One more than fits tells whether this is the last page.
                let room = list.limit as usize + 1 - tasks.len();
                for entry in self.entries_after(queue, place, from, room)? {
                    if tasks.len() == list.limit as usize
                        && let Some(last) = &last
                    {
                        let cursor = serde_json::to_string(last).unwrap_or_default().into();
                        return Ok(Page { tasks, cursor });
                    }
                    let Position { rank, arrival } = entry.at.position;
                    last = Some((tenant.clone(), command.clone(), place.number(), rank, arrival));
                    tasks.push(placed(entry));
                }
            }
        }
        Ok(Page { tasks, cursor: Text::new() })
    }

    /// The queues that the list is about, in order, from that of the cursor on.
    fn queues_from(
        &self,
        list: &ListTasks,
        after: Option<&Cursor>,
    ) -> Outcome<Vec<(QueueId, String, String)>> {
        let (from_tenant, from_command) = match after {
            Some((tenant, command, ..)) => (tenant.as_str(), command.as_str()),
            None => ("", ""),
        };
        let tenant = list.tenant_id.as_ref().into_option().map(Text::as_str);
        let command = list.command.as_ref().into_option().map(|command| queue_name(command));
        let mut read = self.db.prepare_cached(
            "SELECT queue, tenant, command FROM queues WHERE (tenant, command) >= (?1, ?2) \
             AND (?3 IS NULL OR tenant = ?3) AND (?4 IS NULL OR command = ?4) \
             ORDER BY tenant, command",
        )?;
        let mut rows =
            read.query(params![from_tenant, from_command, tenant, command.as_deref()])?;
        let mut queues = Vec::new();
        while let Some(row) = rows.next()? {
            queues.push((row.get(0)?, row.get(1)?, row.get(2)?));
        }
        Ok(queues)
    }

    /// The tasks of a place, in order, from behind `after` on, at most so many. Those that cannot
    /// be read are told to the log and left out.
    fn entries_after(
        &self,
        queue: QueueId,
        place: Place,
        after: Position,
        limit: usize,
    ) -> Outcome<Vec<Entry>> {
        let mut read = self.db.prepare_cached(concat!(
            "SELECT ",
            entry_columns!(),
            ", q.tenant FROM tasks t INDEXED BY tasks_in_order LEFT JOIN bodies b USING (seq) \
             LEFT JOIN queues q USING (queue) WHERE t.queue = ?1 AND t.place = ?2 \
             AND (t.rank, t.arrival) > (?3, ?4) ORDER BY t.rank, t.arrival"
        ))?;
        let mut rows = read.query(params![queue, place.number(), after.rank, after.arrival])?;
        let mut entries = Vec::new();
        while entries.len() < limit
            && let Some(row) = rows.next()?
        {
            match read_with_tenant(row) {
                Ok(entry) => entries.push(entry),
                Err(error) => tracing::error!("{error}; it is left out of the list"),
            }
        }
        Ok(entries)
    }
}

fn wanted(list: &ListTasks, place: Place) -> bool {
    list.status.into_option().is_none_or(|status| place.has_status(status))
        && list.location.into_option().is_none_or(|location| place.is_location(location))
}

fn placed(entry: Entry) -> Placed {
    let visible_at = match entry.at.place {
        Place::Delayed => Instant(entry.at.position.rank),
        _ => Instant::EPOCH,
    };
    Placed { task: entry.task, visible_at }
}

fn read_cursor(cursor: &str) -> Result<Option<Cursor>> {
    if cursor.is_empty() {
        return Ok(None);
    }
    serde_json::from_str(cursor).map(Some).map_err(|error| {
        Error::invalid_argument(format!("`{cursor}` is not the cursor of a page")).because(&error)
    })
}
