//! The spool with its thread: custody and books at every hand-over.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use super::*;

const LIMITS: Limits = Limits { max_bytes: 64 << 20, max_age: Duration::from_secs(3600) };

fn open(path: &Path) -> (Spool, Arc<Destination>) {
    let books = Arc::new(Destination::new("traces", Arc::default()));
    let directory = Directory::open(path, None).unwrap();
    (Spool::open(&directory, LIMITS, books.clone()).unwrap(), books)
}

fn batch(items: u64, bytes: usize) -> Batch {
    Batch { body: vec![7; bytes].into(), items, sealed: Instant::now() }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

#[tokio::test]
async fn what_is_handed_over_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool");
    let (spool, books) = open(&path);
    assert!(spool.lend().await.is_none());
    for items in 1..=4 {
        books.accepted.add(items);
        spool.offer(batch(items, 1000), false).unwrap();
        assert_eq!(books.imbalance(), 0);
    }
    let loan = spool.lend().await.unwrap();
    assert!(spool.lend().await.is_none(), "one at a time");
    drop(loan);
    let loan = spool.lend().await.unwrap();
    assert_eq!(loan.batch.items, 1);
    spool.settle(loan, Settlement::Delivered { rejected: 0 });
    spool.flush(soon()).await;
    assert_eq!((books.exported.get(), books.spool_items.get(), books.spooled.get(), books.imbalance()), (1, 9, 10, 0));
    drop(spool);
    let (spool, books) = open(&path);
    assert_eq!((books.recovered.get(), books.spool_items.get(), books.imbalance()), (9, 9, 0));
    let loan = spool.lend().await.unwrap();
    assert_eq!(loan.batch.items, 2);
    spool.settle(loan, Settlement::Lost(Reason::ExportRefused));
    spool.flush(soon()).await;
    assert_eq!((books.spool_items.get(), books.imbalance()), (7, 0));
}

#[tokio::test]
async fn a_clone_goes_on_where_the_other_stops() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool");
    let (old, books) = open(&path);
    let new = old.clone();
    books.accepted.add(3);
    old.offer(batch(3, 100), false).unwrap();
    let loan = old.lend().await.unwrap();
    old.flush(soon()).await;
    drop((loan, old));
    assert!(matches!(Directory::open(&path, None), Err(SpoolError::InUse(_))));
    let loan = new.lend().await.unwrap();
    new.settle(loan, Settlement::Delivered { rejected: 1 });
    new.flush(soon()).await;
    assert_eq!((books.exported.get(), books.imbalance()), (2, 0));
    drop(new);
    Directory::open(&path, None).unwrap();
}

#[tokio::test]
async fn what_the_disk_does_not_take_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool");
    let (spool, books) = open(&path);
    // As a folder that is gone: no segment can be made in it.
    std::fs::remove_file(path.join("traces/position")).unwrap();
    std::fs::remove_dir(path.join("traces")).unwrap();
    books.accepted.add(5);
    spool.offer(batch(5, 100), false).unwrap();
    spool.flush(soon()).await;
    assert_eq!((books.spool_errors.get(), books.spooling.get(), books.imbalance()), (1, 5, 0));
    assert!(spool.offer(batch(1, 1), false).is_err(), "not while it fails");
    let back = spool.take_returned();
    assert_eq!((back.len(), back.first().unwrap().items, books.spooling.get()), (1, 5, 0));
    // After a rest it is tried again.
    let told = tokio::time::timeout(Duration::from_secs(30), async {
        while spool.offer(batch(0, 1), false).is_err() {
            spool.room().await;
        }
    });
    told.await.unwrap();
}

#[tokio::test]
async fn no_more_is_taken_than_the_disk_follows() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, books) = open(&folder.path().join("spool"));
    let mut refused = 0;
    for _ in 0..2000 {
        refused += u64::from(spool.offer(batch(1, 1 << 20), false).is_err());
        assert!(spool.0.shared.in_flight.load(Ordering::Relaxed) <= IN_FLIGHT);
    }
    assert!(refused > 0, "a disk that follows 2 GB at once");
    spool.flush(soon()).await;
    assert_eq!(books.spooled.get(), 2000 - refused);
    spool.offer(batch(1, 8 << 20), false).unwrap();
    spool.offer(batch(1, 8 << 20), true).unwrap();
    spool.flush(soon()).await;
    assert_eq!(books.spooled.get(), 2002 - refused);
}
