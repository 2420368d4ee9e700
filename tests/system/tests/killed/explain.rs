//! Finds an order in which operations on a task make sense.
//!
//! An operation took effect at some moment between its beginning and its answer. One that was never
//! answered may have taken effect before its host was dead, or not at all.

use std::collections::HashSet;

use super::{
    model::State,
    step::{Micros, Spec, Step},
};

/// Why there is no such order.
#[derive(Debug)]
pub(crate) struct Stuck {
    /// What cannot be explained.
    pub(crate) step: Step,
    /// What the task was by then, in the order that explains the most.
    pub(crate) state: State,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Node {
    /// The operations that did not take effect yet.
    left: Vec<usize>,
    state: State,
    /// The earliest moment.
    at: Micros,
}

/// What a task can be after these operations, if it was one of `states` before.
pub(crate) fn explain(
    spec: &Spec,
    states: &[State],
    steps: &[Step],
) -> Result<Vec<State>, Box<Stuck>> {
    let mut order: Vec<usize> = (0..steps.len()).collect();
    order.sort_by_key(|step| steps[*step].begin);
    let start = |state: &State| Node { left: order.clone(), state: state.clone(), at: Micros::MIN };
    let mut open: Vec<Node> = states.iter().map(start).collect();
    let mut seen: HashSet<Node> = open.iter().cloned().collect();
    let mut found = Vec::new();
    let mut nearest: Option<(usize, Box<Stuck>)> = None;
    while let Some(node) = open.pop() {
        let answered = || node.left.iter().map(|step| &steps[*step]).filter(|s| s.is_answered());
        // Whoever begins after the next answer comes after it.
        let next = answered().min_by_key(|step| step.end);
        match next {
            None if found.contains(&node.state) => {}
            None => found.push(node.state.clone()),
            Some(next) => {
                let count = answered().count();
                if nearest.as_ref().is_none_or(|(least, _)| count < *least) {
                    let stuck = Stuck { step: next.clone(), state: node.state.clone() };
                    nearest = Some((count, Box::new(stuck)));
                }
            }
        }
        let horizon = next.map_or(Micros::MAX, |next| next.end);
        for (n, step) in node.left.iter().enumerate() {
            let step = &steps[*step];
            if step.begin > horizon {
                break;
            }
            let alone = node.state.left_alone(spec, node.at, step.end);
            for (state, at) in alone.into_iter().chain([(node.state.clone(), node.at)]) {
                let Some((state, at)) = state.after(spec, step, at) else { continue };
                let mut left = node.left.clone();
                left.remove(n);
                let node = Node { left, state, at };
                if seen.insert(node.clone()) {
                    open.push(node);
                }
            }
        }
    }
    match nearest {
        Some((_, stuck)) if found.is_empty() => Err(stuck),
        _ => Ok(found),
    }
}
