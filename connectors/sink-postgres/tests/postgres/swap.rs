//! A swap and those who hold locks of the table.

use foldline_api::rebuild::{By, Phase, Step, Stepped};
use foldline_api::sink::{Target, Version};

use crate::support::{Fixture, Held, claim, orders, put, row, session};

const HOLD: Step = Step::Hold { patient: false };

async fn step(target: &dyn Target, build: u64, step: Step) -> Stepped {
    target.rebuilds().step(build, step).await.unwrap()
}

#[tokio::test]
async fn a_swap_that_would_wait_for_a_reader_does_not_hold_the_live_generation() {
    let fixture = Fixture::new().await;
    let target = fixture.target(fixture.spec(orders()));
    target.open().await.unwrap();
    let mut live = Held::new(&target, 1, orders()).await;
    live.durable(vec![put(row(1, 1, "a"), Version::Absent)]).await;
    let build = target.rebuilds().begin(By::Operator, &[claim(0)], &[]).await.unwrap();
    let mut next = Held::new(&target, build, orders()).await;
    next.durable(vec![put(row(1, 1, "a"), Version::Absent)]).await;
    assert!(matches!(step(&target, build, Step::Follow).await, Stepped::Done(_)));

    let reader = session().await;
    let table = format!("{}.orders", fixture.schema);
    let read = format!("SET application_name = 'dashboard'; BEGIN; SELECT count(*) FROM {table}");
    reader.batch_execute(&read).await.unwrap();
    let pid: i32 = reader.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let Stepped::NotYet(why) = step(&target, build, HOLD).await else {
        panic!("it is held although the swap must wait")
    };
    assert!(why.contains(&format!("process {pid} (dashboard)")), "{why}");
    let seen = target.rebuilds().generations().await.unwrap().build.unwrap();
    assert_eq!(seen.phase, Phase::Following);
    // Nobody waited behind the question, and live events go on.
    live.durable(vec![put(row(2, 1, "b"), Version::Absent)]).await;
    next.durable(vec![put(row(2, 1, "b"), Version::Absent)]).await;
    reader.batch_execute("COMMIT").await.unwrap();
    for due in [HOLD, Step::Swap] {
        assert!(matches!(step(&target, build, due).await, Stepped::Done(_)), "{due:?}");
    }
    assert_eq!(target.status().await.unwrap().generation, build);
}
