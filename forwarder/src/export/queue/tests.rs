//! Bounds, what stays, and what a stop counts.

use std::time::Duration;

use super::*;
use crate::loss::Losses;

fn queue(max_items: u64, max_bytes: usize, keep: Keep) -> (Queue, Arc<Destination>) {
    let books = Arc::new(Destination::new("traces", Arc::new(Losses::default())));
    (Queue::new(Limits { items: max_items, bytes: max_bytes, keep }, None, books.clone()), books)
}

fn push(q: &Queue, group: Vec<Batch>) {
    q.books.accepted.add(group.iter().map(|b| b.items).sum());
    q.push(group);
}

fn batch(items: u64, bytes: usize) -> Batch {
    Batch { body: vec![0; bytes].into(), items, sealed: Instant::now() }
}

fn lost(books: &Destination, reason: Reason) -> u64 {
    books.losses().find(|(r, _)| *r == reason).map_or(0, |(_, n)| n)
}

#[tokio::test]
async fn limits_include_what_is_on_its_way() {
    let (q, books) = queue(10, 100, Keep::All);
    push(&q, vec![batch(6, 10)]);
    assert_eq!(q.pop().map(|b| b.items), Some(6));
    push(&q, vec![batch(5, 10)]);
    assert_eq!(lost(&books, Reason::ExportQueueFull), 5);
    push(&q, vec![batch(4, 91)]);
    assert_eq!(lost(&books, Reason::ExportQueueFull), 9);
    push(&q, vec![batch(4, 90)]);
    assert_eq!((books.queued.get(), books.queued_bytes.get(), books.imbalance()), (10, 100, 0));
    q.settle(Settlement::Delivered { rejected: 2 });
    assert_eq!((books.exported.get(), lost(&books, Reason::ExportPartial), books.queued.get()), (4, 2, 4));
    assert_eq!(books.imbalance(), 0);
    q.settle(Settlement::Delivered { rejected: 0 });
    assert_eq!(books.exported.get(), 4, "nothing is settled twice");
}

#[tokio::test]
async fn a_batch_above_the_limit_is_taken_alone() {
    let (q, books) = queue(10, 100, Keep::All);
    push(&q, vec![batch(11, 1), batch(1, 1)]);
    assert_eq!((books.queued.get(), lost(&books, Reason::ExportQueueFull)), (11, 1));
}

#[tokio::test]
async fn the_latest_group_replaces_what_waits() {
    let (q, books) = queue(10, 100, Keep::Latest);
    push(&q, vec![batch(1, 1), batch(2, 1)]);
    assert_eq!(q.pop().map(|b| b.items), Some(1));
    push(&q, vec![batch(3, 1), batch(4, 1)]);
    assert_eq!((books.superseded.get(), books.queued.get()), (2, 8));
    assert!(q.is_superseded());
    q.settle(Settlement::Superseded);
    assert_eq!((books.superseded.get(), books.imbalance()), (3, 0));
}

#[tokio::test]
async fn closing_ends_and_abandoning_counts() {
    let (q, books) = queue(10, 100, Keep::All);
    push(&q, vec![batch(1, 1), batch(2, 1)]);
    q.close(Instant::now() + Duration::from_secs(1));
    push(&q, vec![batch(3, 1)]);
    assert_eq!(lost(&books, Reason::ExportAtStop), 3);
    assert_eq!(q.pop().map(|b| b.items), Some(1));
    q.abandon(Instant::now()).await;
    assert_eq!((lost(&books, Reason::ExportAtStop), books.queued.get(), books.imbalance()), (6, 0, 0));
    assert!(q.pop().is_none());
}
