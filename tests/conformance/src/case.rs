//! The rules of the storage contract, and the cases that prove them.

use std::fmt;

use codeq_plugin::Capability;
use serde::{Deserialize, Serialize};

use crate::stage::Stage;

/// A rule of the storage contract, or a part of it that has no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the titles tell")]
pub enum Rule {
    Durability,
    OneOwner,
    Order,
    Delay,
    Attempts,
    Leases,
    Fencing,
    Backoff,
    Idempotency,
    Tenants,
    Counts,
    Cost,
    Completion,
    Subscriptions,
    BackendLoss,
    CorruptData,
    Records,
    Reports,
    Retention,
    Listing,
    Life,
}

impl Rule {
    /// All of them, in the order of the contract.
    pub const ALL: [Rule; 21] = [
        Rule::Durability,
        Rule::OneOwner,
        Rule::Order,
        Rule::Delay,
        Rule::Attempts,
        Rule::Leases,
        Rule::Fencing,
        Rule::Backoff,
        Rule::Idempotency,
        Rule::Tenants,
        Rule::Counts,
        Rule::Cost,
        Rule::Completion,
        Rule::Subscriptions,
        Rule::BackendLoss,
        Rule::CorruptData,
        Rule::Records,
        Rule::Reports,
        Rule::Retention,
        Rule::Listing,
        Rule::Life,
    ];

    /// Its number in the contract, if it has one.
    pub fn number(self) -> Option<u8> {
        let number = self as u8 + 1;
        (number <= 16).then_some(number)
    }

    /// Its title.
    pub const fn title(self) -> &'static str {
        match self {
            Rule::Durability => "durable before answered",
            Rule::OneOwner => "one owner",
            Rule::Order => "order",
            Rule::Delay => "delay",
            Rule::Attempts => "attempts",
            Rule::Leases => "leases",
            Rule::Fencing => "fencing",
            Rule::Backoff => "backoff",
            Rule::Idempotency => "idempotency",
            Rule::Tenants => "tenants",
            Rule::Counts => "counts reconcile",
            Rule::Cost => "cost",
            Rule::Completion => "completed once",
            Rule::Subscriptions => "subscriptions",
            Rule::BackendLoss => "the backend goes away",
            Rule::CorruptData => "bad stored data",
            Rule::Records => "records",
            Rule::Reports => "reports of what moved",
            Rule::Retention => "retention",
            Rule::Listing => "listing and redriving",
            Rule::Life => "life cycle",
        }
    }

    /// What the command line and reports call it: its number, or a name.
    pub fn label(self) -> String {
        match self {
            Rule::Records => "records".into(),
            Rule::Reports => "reports".into(),
            Rule::Retention => "retention".into(),
            Rule::Listing => "listing".into(),
            Rule::Life => "life".into(),
            numbered => (numbered as u8 + 1).to_string(),
        }
    }

    /// The rule of that label, or of the name that reports in JSON use.
    pub fn parse(label: &str) -> Option<Rule> {
        let named = |rule: &Rule| serde_json::to_value(rule).is_ok_and(|name| name == label);
        Rule::ALL.into_iter().find(|rule| rule.label() == label || named(rule))
    }
}

/// The payload of the panic that ends a case because of something that belongs to this rule.
pub(crate) struct Broken {
    pub(crate) rule: Rule,
    pub(crate) what: String,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.title())
    }
}

/// A case: something that every plugin does, shown by an example.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) rule: Rule,
    /// A sentence, with underscores.
    pub(crate) name: &'static str,
    pub(crate) play: fn(&Stage),
    /// It belongs to a capability. A plugin without it plays another case, which shows that it says
    /// so.
    pub(crate) needs: Option<Capability>,
    /// It looks at, or moves, what belongs to everybody, so nothing else may happen on the backend.
    pub(crate) alone: bool,
    /// It takes its time, and does so when everything else is done.
    pub(crate) slow: bool,
}

impl Case {
    pub(crate) fn of(rule: Rule, name: &'static str, play: fn(&Stage)) -> Case {
        Case { rule, name, play, needs: None, alone: false, slow: false }
    }

    pub(crate) fn alone(self) -> Case {
        Case { alone: true, ..self }
    }

    pub(crate) fn slow(self) -> Case {
        Case { slow: true, ..self }
    }

    pub(crate) fn listing(self) -> Case {
        Case { needs: Some(Capability::Listing), ..self }
    }

    pub(crate) fn subscriptions(self) -> Case {
        Case { needs: Some(Capability::Subscriptions), ..self }
    }

    pub(crate) fn shared(self) -> Case {
        Case { needs: Some(Capability::Shared), ..self }
    }
}

/// The cases of a rule, from the functions that play them. What stands before a function, such as
/// `#[alone]`, is a method of [`Case`].
macro_rules! cases {
    ($rule:ident: $($(#[$mark:ident])* $case:ident),* $(,)?) => {
        [$(
            crate::case::Case::of(crate::case::Rule::$rule, stringify!($case), $case)$(.$mark())*
        ),*]
    };
}
pub(crate) use cases;
