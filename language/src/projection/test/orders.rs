//! Interleavings: every order of records that keeps each topic's own.

use indexmap::IndexMap;

/// The orders to try.
pub(super) struct Orders {
    /// Indexes of records; the order as written comes first.
    pub(super) tried: Vec<Vec<usize>>,
    /// How many there are in all; none where they are too many to count.
    pub(super) possible: Option<u64>,
}

/// All orders up to `max`; of more, the written one, each with one topic first, and a fixed choice
/// of others.
pub(super) fn orders(topics: &[&str], given_only: bool, max: usize) -> Orders {
    let written: Vec<usize> = (0..topics.len()).collect();
    let mut queues: IndexMap<&str, Vec<usize>> = IndexMap::new();
    for (at, topic) in topics.iter().enumerate() {
        queues.entry(topic).or_default().push(at);
    }
    let queues: Vec<Vec<usize>> = queues.into_values().collect();
    if given_only || queues.len() < 2 {
        return Orders { tried: vec![written], possible: Some(1) };
    }
    let possible = count(&queues);
    let mut tried = vec![written];
    if possible.is_some_and(|possible| usize::try_from(possible).is_ok_and(|p| p <= max)) {
        walk(&queues, &mut vec![0; queues.len()], &mut Vec::new(), &mut tried);
    } else {
        sample(&queues, max, &mut tried);
    }
    Orders { tried, possible }
}

/// The multinomial coefficient.
fn count(queues: &[Vec<usize>]) -> Option<u64> {
    let (mut total, mut placed) = (1u128, 0u128);
    for queue in queues {
        for at in 1..=queue.len() as u128 {
            placed += 1;
            // Exact at each step: a binomial coefficient times `placed` divides by `at`.
            total = total.checked_mul(placed)? / at;
        }
    }
    u64::try_from(total).ok()
}

fn walk(
    queues: &[Vec<usize>],
    taken: &mut Vec<usize>,
    order: &mut Vec<usize>,
    out: &mut Vec<Vec<usize>>,
) {
    let mut last = true;
    for (at, queue) in queues.iter().enumerate() {
        let Some(&next) = taken.get(at).and_then(|&n| queue.get(n)) else { continue };
        last = false;
        order.push(next);
        bump(taken, at, 1);
        walk(queues, taken, order, out);
        bump(taken, at, -1);
        order.pop();
    }
    // The order as written is there already.
    if last && out.first() != Some(order) {
        out.push(order.clone());
    }
}

fn bump(taken: &mut [usize], at: usize, by: isize) {
    if let Some(place) = taken.get_mut(at) {
        *place = place.saturating_add_signed(by);
    }
}

fn sample(queues: &[Vec<usize>], max: usize, out: &mut Vec<Vec<usize>>) {
    for first in 0..queues.len() {
        let (before, after) = queues.split_at(first);
        out.push(after.iter().chain(before).flatten().copied().collect());
    }
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    while out.len() < max {
        let mut left: Vec<std::slice::Iter<'_, usize>> = queues.iter().map(|q| q.iter()).collect();
        let mut order = Vec::new();
        loop {
            let records: usize = left.iter().map(ExactSizeIterator::len).sum();
            let Some(mut pick) = step(&mut random).checked_rem(records as u64) else { break };
            for queue in &mut left {
                let here = queue.len() as u64;
                if pick < here {
                    order.extend(queue.next());
                    break;
                }
                pick -= here;
            }
        }
        out.push(order);
    }
}

/// Xorshift: the same choice on every run.
fn step(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_that_keeps_each_topics_own_is_tried_once() {
        let orders = orders(&["a", "b", "a", "c", "b"], false, 2_000);
        assert_eq!(orders.possible, Some(30));
        assert_eq!(orders.tried.len(), 30);
        assert_eq!(orders.tried[0], [0, 1, 2, 3, 4]);
        let mut unique = orders.tried.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), 30);
        for order in &orders.tried {
            let place = |record| order.iter().position(|at| *at == record).unwrap();
            assert!(place(0) < place(2) && place(1) < place(4), "{order:?}");
        }
    }

    #[test]
    fn too_many_are_sampled_and_said_to_be() {
        let topics: Vec<&str> = (0..40).map(|at| if at % 2 == 0 { "a" } else { "b" }).collect();
        let orders = orders(&topics, false, 100);
        assert_eq!(orders.tried.len(), 100);
        assert_eq!(orders.possible, Some(137_846_528_820));
        for order in &orders.tried {
            let of = |parity| order.iter().filter(move |at| *at % 2 == parity).is_sorted();
            assert!(order.len() == 40 && of(0) && of(1));
        }
    }

    #[test]
    fn one_topic_has_one_order() {
        assert_eq!(orders(&["a", "a"], false, 10).tried, [[0, 1]]);
        assert_eq!(orders(&["a", "b"], true, 10).tried, [[0, 1]]);
    }
}
