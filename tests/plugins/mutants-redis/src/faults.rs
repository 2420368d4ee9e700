//! The faults: what is changed in the redis plugin's source, and which rule that breaks. As those of
//! the memory plugin, for the rules that need a backend or several hosts.

/// One fault.
pub(crate) struct Fault {
    /// What chooses it.
    pub(crate) name: &'static str,
    /// The rule that it breaks, as reports call it.
    pub(crate) rule: &'static str,
    /// What is changed: a file of the redis plugin, a text in it that is there once, and what stands
    /// there instead. `FAULTY` is whether this fault is the chosen one.
    pub(crate) changes: &'static [(&'static str, &'static str, &'static str)],
}

/// All of them, by the rule that they break.
pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        name: "a-lost-server-is-somebodys-fault",
        rule: "backend-loss",
        changes: &[(
            "fault.rs",
            r#"    } else if is_loss(error) {
        Error::unavailable(format!("redis at {addr} was lost"#,
            r#"    } else if FAULTY && is_loss(error) {
        Error::internal(format!("redis at {addr} failed"))
    } else if is_loss(error) {
        Error::unavailable(format!("redis at {addr} was lost"#,
        )],
    },
    Fault {
        name: "a-server-that-hangs-is-waited-for",
        rule: "backend-loss",
        changes: &[(
            "server.rs",
            r#"        if let Ok(answer) = timeout(limit, call).await {"#,
            r#"        let limit = if FAULTY { Duration::from_secs(3_600) } else { limit };
        if let Ok(answer) = timeout(limit, call).await {"#,
        )],
    },
    Fault {
        name: "a-record-that-cannot-be-read-is-not-there",
        rule: "corrupt-data",
        changes: &[(
            "record.rs",
            r#"pub(crate) fn unreadable(id: &str) -> Error {"#,
            r#"pub(crate) fn unreadable(id: &str) -> Error {
    if FAULTY {
        return Error::not_found(format!("there is no task {id}"));
    }"#,
        )],
    },
    Fault {
        name: "a-record-that-cannot-be-read-stops-its-queue",
        rule: "corrupt-data",
        changes: &[(
            "reply.rs",
            r#"            record::report_unreadable(tasks, &String::from_utf8_lossy(&unreadable.bytes()?));"#,
            r#"            let id = unreadable.text()?;
            record::report_unreadable(tasks, &id);
            if FAULTY {
                return Err(record::unreadable(&id));
            }"#,
        )],
    },
];
