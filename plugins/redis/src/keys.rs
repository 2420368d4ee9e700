//! Where things are in a cluster: tags, keys and slots.
//!
//! What belongs to one queue has the queue's tag in its keys, and so is in one slot. Everything else that is
//! about one thing (where a task is, who has an idempotency key, whose turn it is) is in one key with a tag
//! of its own.

use std::{fmt::Write, sync::Arc};

use codeq_plugin::{Queue, Text, queue_name};

use crate::scripts::Layout;

/// One of the parts that a cluster's keys are spread over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Slot(pub(crate) u16);

impl Slot {
    /// How many there are.
    pub(crate) const COUNT: u16 = 16_384;

    /// The slot of a key: that of its tag, which stands in the first braces.
    pub(crate) fn of(key: &str) -> Slot {
        let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
        // Empty braces are no tag.
        let hashed = tag.map_or(key, |(tag, _)| if tag.is_empty() { key } else { tag });
        Slot(crc16(hashed.as_bytes()) % Slot::COUNT)
    }
}

/// CRC-16/XMODEM, as Redis spreads keys by it.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc: u16, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

/// What a script works on.
#[derive(Clone, Debug)]
pub(crate) struct Scope(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// None where everything is in one place.
    slot: Option<Slot>,
    /// All that a script may touch, so that a node can tell whether it has it; none where all keys are.
    keys: Vec<String>,
    /// What the script is told about the scope.
    about: Vec<String>,
    queue: Queue,
    tag: String,
}

impl Scope {
    /// All of codeQ's keys.
    pub(crate) fn codeq() -> Scope {
        Scope(Arc::new(Inner {
            slot: None,
            keys: Vec::new(),
            about: Vec::new(),
            queue: Queue::default(),
            tag: String::new(),
        }))
    }

    /// A queue in a cluster.
    pub(crate) fn queue(command: &str, tenant: &str) -> Scope {
        let command = queue_name(command);
        let tag = format!("{}:{}", escaped(&command), escaped(tenant));
        let mut keys: Vec<String> = ["tasks", "results", "ttl"].map(|name| key(&tag, name)).into();
        keys.extend((0..10).map(|priority| key(&tag, &format!("pending:{priority}"))));
        let others = ["inprog", "delayed", "dlq", "deadlines", "corrupt", "void"];
        keys.extend(others.map(|name| key(&tag, name)));
        let queue = Queue { tenant_id: tenant.into(), command: command.as_ref().into() };
        Scope(Arc::new(Inner {
            slot: Some(Slot::of(&keys[0])),
            keys,
            about: vec![command.into_owned(), tenant.to_owned()],
            queue,
            tag,
        }))
    }

    /// The queue of a tag; nothing if that is no tag of a queue.
    pub(crate) fn tagged(tag: &str) -> Option<Scope> {
        let Queue { command, tenant_id } = named(tag)?;
        let scope = Scope::queue(&command, &tenant_id);
        (scope.tag() == tag).then_some(scope)
    }

    /// The subscriptions in a cluster.
    pub(crate) fn subscriptions() -> Scope {
        let tag = "subs".to_owned();
        let keys: Vec<_> = ["all", "told", "turns", "lower"].map(|name| key(&tag, name)).into();
        Scope(Arc::new(Inner {
            slot: Some(Slot::of(&keys[0])),
            keys,
            about: Vec::new(),
            queue: Queue::default(),
            tag,
        }))
    }

    pub(crate) fn layout(&self) -> Layout {
        if self.0.slot.is_some() { Layout::Cluster } else { Layout::Codeq }
    }

    pub(crate) fn slot(&self) -> Option<Slot> {
        self.0.slot
    }

    pub(crate) fn keys(&self) -> &[String] {
        &self.0.keys
    }

    pub(crate) fn about(&self) -> &[String] {
        &self.0.about
    }

    /// The hash of tasks.
    pub(crate) fn tasks(&self) -> &str {
        self.0.keys.first().map_or("codeq:tasks", String::as_str)
    }

    /// The hash of results.
    pub(crate) fn results(&self) -> &str {
        self.0.keys.get(1).map_or("codeq:results", String::as_str)
    }

    /// The sorted set of ids by when their retention ends.
    pub(crate) fn retention(&self) -> &str {
        self.0.keys.get(2).map_or("codeq:tasks:ttl", String::as_str)
    }

    /// What is in the braces of the keys.
    pub(crate) fn tag(&self) -> &str {
        &self.0.tag
    }

    /// The tenant, and the command in lower case, of a queue in a cluster.
    pub(crate) fn of_queue(&self) -> &Queue {
        &self.0.queue
    }

    pub(crate) fn tenant(&self) -> &Text {
        &self.0.queue.tenant_id
    }
}

/// The command and the tenant that a tag is made of; nothing if it is of no queue.
pub(crate) fn named(tag: &str) -> Option<Queue> {
    let (command, tenant) = tag.split_once(':')?;
    Some(Queue { command: unescaped(command)?.into(), tenant_id: unescaped(tenant)?.into() })
}

/// Of which queues there are in a cluster, by their tags.
pub(crate) const REGISTRY: &str = "codeq:{registry}:queues";

/// How the keys begin that say in which queue a task is.
pub(crate) const POINTERS: &str = "codeq:at:{";

/// Says in which queue a task is.
pub(crate) fn pointer(id: &str) -> String {
    format!("{POINTERS}{}}}", escaped(id))
}

/// The task that such a key is about; nothing if it is another key.
pub(crate) fn pointed(key: &str) -> Option<String> {
    unescaped(key.strip_prefix(POINTERS)?.strip_suffix('}')?)
}

/// Says which task has an idempotency key.
pub(crate) fn reservation(tenant: &str, key: &str) -> String {
    format!("codeq:idempo:{{{}:{}}}", escaped(tenant), escaped(key))
}

/// Says which queues of a tenant have claimable tasks, and whose turn it is.
pub(crate) fn turns(tenant: &str) -> String {
    format!("codeq:{{ready:{}}}:queues", escaped(tenant))
}

fn key(tag: &str, name: &str) -> String {
    format!("codeq:{{{tag}}}:{name}")
}

/// A name without what separates names in keys and values: braces, colons, blanks.
pub(crate) fn escaped(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for c in name.chars() {
        if matches!(c, '%' | ':' | '{' | '}' | '\0'..=' ') {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "%{:02X}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// The name that was escaped; nothing if no name was.
pub(crate) fn unescaped(escaped: &str) -> Option<String> {
    let mut parts = escaped.split('%');
    let mut name = parts.next()?.to_owned();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        name.push(char::from(u8::from_str_radix(code, 16).ok()?));
        name.push_str(rest);
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        assert_eq!(Slot::of("123456789"), Slot(0x31C3));
        assert_eq!(Slot::of("foo"), Slot(12_182));
        assert_eq!(Slot::of("a{foo}b{bar}"), Slot(12_182));
        assert_eq!(Slot::of("codeq:at:{}"), Slot(15_685));
    }

    #[test]
    fn every_name_makes_a_tag_of_its_own_that_tells_it() {
        let names = ["", "a", "b", "a:b", ":", "{", "}", "%3A", "a b", "\0", "äö", "a%"];
        let mut seen = std::collections::HashSet::new();
        for command in names {
            for tenant in names {
                let scope = Scope::queue(command, tenant);
                assert!(seen.insert(scope.tag().to_owned()), "{command:?} {tenant:?}");
                assert!(!scope.tag().contains(['{', '}', ' ']));
                let again = Scope::tagged(scope.tag()).unwrap();
                assert_eq!(again.of_queue(), scope.of_queue());
                assert!(scope.keys().iter().all(|key| Some(Slot::of(key)) == scope.slot()));
            }
            assert_eq!(pointed(&pointer(command)).as_deref(), Some(command));
        }
    }

    #[test]
    fn what_is_no_tag_is_no_queue() {
        for tag in ["", "a", "a:b:c", "A:t", "a:%", "a:%zz", "a:b c"] {
            assert!(Scope::tagged(tag).is_none(), "{tag}");
        }
    }
}
