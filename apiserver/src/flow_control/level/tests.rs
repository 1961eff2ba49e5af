//! Levels by themselves.

use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

fn level(nominal: u32, queuing: Option<Queuing>) -> Arc<Level> {
    let shape = Shape {
        exempt: false,
        nominal,
        least: nominal,
        most: 600,
        queuing,
    };
    Level::new("l", shape, Gauges::default())
}

fn queuing(length: usize) -> Option<Queuing> {
    Some(Queuing {
        queues: 4,
        hand: 1,
        length,
    })
}

async fn enter(level: &Arc<Level>, seats: u32, flow: u64) -> Result<Seat, Refused> {
    match level.ask(seats, || flow)? {
        Asked::Seated(seat) => Ok(seat),
        Asked::Queued(ticket) => ticket.wait(PATIENCE).await,
    }
}

#[tokio::test]
async fn without_queues_who_finds_no_seat_is_refused() {
    let level = level(2, None);
    let seats = (enter(&level, 1, 0).await, enter(&level, 1, 0).await);
    assert!(seats.0.is_ok() && seats.1.is_ok());
    assert_eq!(enter(&level, 1, 0).await.err(), Some(Refused::ConcurrencyLimit));
    drop(seats.0);
    assert!(enter(&level, 1, 0).await.is_ok());
}

#[tokio::test]
async fn a_flood_fills_its_own_queue_and_others_are_served_in_between() {
    let level = level(1, queuing(3));
    let seat = enter(&level, 1, 0).await.expect("a seat");
    let mut flood: Vec<_> = (0..3).map(|_| Box::pin(enter(&level, 1, 0))).collect();
    for one in &mut flood {
        assert!(futures::poll!(one.as_mut()).is_pending());
    }
    assert_eq!(enter(&level, 1, 0).await.err(), Some(Refused::QueueFull));
    let mut other = Box::pin(enter(&level, 1, 1));
    assert!(futures::poll!(other.as_mut()).is_pending());
    drop(seat);
    let first = flood.remove(0).await.expect("a seat");
    drop(first);
    // The flood has had its turn.
    let turn = other.await.expect("a seat");
    assert!(futures::poll!(flood[0].as_mut()).is_pending());
    drop(turn);
    assert!(flood.remove(0).await.is_ok());
}

#[tokio::test]
async fn who_goes_away_leaves_no_seat_taken() {
    let level = level(1, queuing(3));
    let seat = enter(&level, 1, 0).await.expect("a seat");
    let mut gone = Box::pin(enter(&level, 1, 0));
    assert!(futures::poll!(gone.as_mut()).is_pending());
    let mut stays = Box::pin(enter(&level, 1, 0));
    assert!(futures::poll!(stays.as_mut()).is_pending());
    drop(gone);
    let mut granted = Box::pin(enter(&level, 1, 2));
    assert!(futures::poll!(granted.as_mut()).is_pending());
    drop(seat);
    drop(stays.await.expect("a seat"));
    // Granted, but dropped before anybody looked.
    drop(granted);
    assert!(enter(&level, 1, 0).await.is_ok());
    assert_eq!(level.inner.lock().in_use, 0);
}

#[tokio::test]
async fn who_waits_too_long_is_refused_and_leaves_the_queue() {
    let level = level(1, queuing(1));
    let _seat = enter(&level, 1, 0).await.expect("a seat");
    let Ok(Asked::Queued(ticket)) = level.ask(1, || 0) else {
        panic!("a place in the queue")
    };
    let waited = ticket.wait(Duration::from_millis(1)).await;
    assert_eq!(waited.err(), Some(Refused::TimeOut));
    let inner = level.inner.lock();
    assert_eq!((inner.in_use, inner.waiting, inner.waiting_seats), (1, 0, 0));
}

#[tokio::test]
async fn large_requests_take_several_seats_but_never_more_than_there_are() {
    let level = level(4, queuing(3));
    let large = enter(&level, 10, 0).await.expect("all seats");
    assert!(futures::poll!(Box::pin(enter(&level, 1, 1)).as_mut()).is_pending());
    drop(large);
    assert!(enter(&level, 1, 1).await.is_ok());
    let exempt = level.demand().0;
    level.reshape(Shape {
        exempt: true,
        ..exempt
    });
    let _all = (enter(&level, 9, 0).await, enter(&level, 9, 0).await);
    assert_eq!(level.inner.lock().in_use, 0);
}

#[tokio::test]
async fn a_level_without_seats_serves_one_request_at_a_time() {
    let level = level(0, queuing(3));
    let seat = enter(&level, 1, 0).await.expect("a seat");
    let mut next = Box::pin(enter(&level, 1, 1));
    assert!(futures::poll!(next.as_mut()).is_pending());
    drop(seat);
    assert!(next.await.is_ok());
}

#[tokio::test]
async fn a_level_that_is_reshaped_keeps_those_who_wait() {
    let level = level(1, queuing(3));
    let seat = enter(&level, 1, 0).await.expect("a seat");
    let mut waits = Box::pin(enter(&level, 1, 3));
    assert!(futures::poll!(waits.as_mut()).is_pending());
    let fewer = Shape {
        queuing: Some(Queuing {
            queues: 2,
            hand: 1,
            length: 3,
        }),
        ..level.demand().0
    };
    level.reshape(fewer.clone());
    assert_eq!(level.inner.lock().queues[&1].waiting.len(), 1);
    level.reshape(Shape {
        queuing: None,
        ..fewer
    });
    assert_eq!(enter(&level, 1, 0).await.err(), Some(Refused::ConcurrencyLimit));
    drop(seat);
    assert!(waits.await.is_ok());
}

#[tokio::test]
async fn a_queue_that_had_much_waits_longer() {
    let level = level(1, queuing(9));
    let seat = enter(&level, 1, 0).await.expect("a seat");
    let mut greedy: Vec<_> = (0..2).map(|_| Box::pin(enter(&level, 1, 0))).collect();
    let mut modest: Vec<_> = (0..2).map(|_| Box::pin(enter(&level, 1, 1))).collect();
    for one in greedy.iter_mut().chain(&mut modest) {
        assert!(futures::poll!(one.as_mut()).is_pending());
    }
    drop(seat);
    let long = greedy.remove(0).await.expect("a seat");
    std::thread::sleep(Duration::from_millis(20));
    drop(long);
    // Twice in a row: the first of the others took as long as six.
    for _ in 0..2 {
        drop(modest.remove(0).await.expect("a seat"));
    }
    drop(greedy.remove(0).await.expect("a seat"));
    assert!(
        level.inner.lock().queues.is_empty(),
        "nobody waits: nothing is remembered"
    );
}
