//! Paging through tasks, in the order of the index.
//!
//! A task that does not change keeps its spot, so it is on exactly one page. What a list filters by
//! is looked at task by task: that is for administrators, no worker waits for it.

use codeq_plugin::{Error, Instant, List, ListTasks, Page, Placed, Result, Task, Text, queue_name};

use crate::{
    index::{Name, Place, Spot},
    tasks::Tasks,
};

/// The page of a list that begins at its cursor.
pub(crate) fn page(tasks: &Tasks, list: &ListTasks) -> Result<Page> {
    let tenant = list.tenant_id.as_ref().into_option();
    let first_tenant = tenant.map_or("", Text::as_str).into();
    let first = Spot::before(&first_tenant, Place::Ready, &"".into());
    let after = read_cursor(&list.cursor)?.map_or(first.clone(), |cursor| cursor.max(first));
    let mut matching = tasks
        .index
        .after(&after)
        .take_while(|(spot, _)| tenant.is_none_or(|tenant| *spot.tenant == **tenant))
        .filter_map(|(spot, id)| Some((spot, &tasks.get(id).ok()?.task)))
        .filter(|(_, task)| is_wanted(task, list));
    let mut page = List::new();
    let mut last = None;
    for (spot, task) in matching.by_ref().take(list.limit as usize) {
        let visible_at = match spot.place {
            Place::Delayed => Instant(spot.rank),
            _ => Instant::EPOCH,
        };
        page.push(Placed {
            task: task.clone(),
            visible_at,
        });
        last = Some(spot);
    }
    let more = last.filter(|_| matching.next().is_some());
    Ok(Page {
        tasks: page,
        cursor: more.map(write_cursor).unwrap_or_default(),
    })
}

fn is_wanted(task: &Task, list: &ListTasks) -> bool {
    let command = list.command.as_ref().into_option();
    let (status, location) = (list.status.into_option(), list.location.into_option());
    command.is_none_or(|command| queue_name(command) == queue_name(&task.command))
        && status.is_none_or(|status| status == task.status)
        && location.is_none_or(|location| location == task.last_known_location)
}

/// The names come last, the first with its length, so that they may contain anything.
fn write_cursor(spot: &Spot) -> Text {
    let Spot {
        tenant,
        place,
        queue,
        rank,
        sequence,
    } = spot;
    let (place, len) = (*place as usize, tenant.len());
    format!("{place}/{rank}/{sequence}/{len}/{tenant}{queue}").into()
}

fn read_cursor(cursor: &str) -> Result<Option<Spot>> {
    if cursor.is_empty() {
        return Ok(None);
    }
    let strange = || Error::invalid_argument(format!("`{cursor}` is not the cursor of a page"));
    parse_cursor(cursor).map(Some).ok_or_else(strange)
}

fn parse_cursor(cursor: &str) -> Option<Spot> {
    let mut parts = cursor.splitn(5, '/');
    let place = *Place::ALL.get(parts.next()?.parse::<usize>().ok()?)?;
    let rank = parts.next()?.parse().ok()?;
    let sequence = parts.next()?.parse().ok()?;
    let len = parts.next()?.parse().ok()?;
    let (tenant, queue) = parts.next()?.split_at_checked(len)?;
    let (tenant, queue) = (Name::from(tenant), Name::from(queue));
    Some(Spot {
        tenant,
        place,
        queue,
        rank,
        sequence,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_its_text_whatever_the_names() {
        for (tenant, queue) in [("", "a"), ("a/b", "7/c"), ("ä\n", "\u{0}")] {
            let spot = Spot {
                rank: -7,
                sequence: 42,
                ..Spot::before(&tenant.into(), Place::Dead, &queue.into())
            };
            assert_eq!(read_cursor(&write_cursor(&spot)).unwrap(), Some(spot));
        }
        for text in ["x", "0/0/0", "9/0/0/0/a", "0/0/0/2/a"] {
            assert!(read_cursor(text).is_err(), "{text}");
        }
    }
}
