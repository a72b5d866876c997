//! What happens to nodes.

use std::time::{Duration, Instant};

use actix_web::rt::time::sleep;
use futures_util::future::join_all;
use testing::try_until;

use crate::Verdict;
use crate::backend::Backend;
use crate::sick::Sick;
use crate::system::{System, SystemOn, TTL};

const SECOND: Duration = Duration::from_secs(1);

/// No GET fails, at most those POSTs do that it was working on, and its key goes in time.
pub(crate) async fn killed<B: Backend>() -> anyhow::Result<Verdict> {
    let mut system = SystemOn::<B>::start(&["v1", "v1", "v1"]).await?;
    let (gets, posts) = (system.gets(300), system.posts(100));
    sleep(SECOND).await;
    let died = Instant::now();
    drop(system.greeters.remove(0));
    let gone = || async { Ok(system.server.listed().await?.len() == 2) };
    try_until("its key to go", TTL * 3, gone).await?;
    let took = died.elapsed();
    let (gets, posts) = (gets.end().await?, posts.end().await?);
    Ok(
        Verdict::new(gets.failed() == 0 && posts.failed() <= 2 && took <= TTL + SECOND)
            .counted(&gets)
            .counted(&posts)
            .note(format!("key gone after {:.1} s", took.as_secs_f64())),
    )
}

/// Nothing fails, and each ends with 0.
pub(crate) async fn scaled_down<B: Backend>() -> anyhow::Result<Verdict> {
    let mut system = SystemOn::<B>::start(&["v1"; 5]).await?;
    let (gets, posts) = (system.gets(200), system.posts(100));
    let mut codes = Vec::new();
    for greeter in system.greeters.drain(1..) {
        codes.push(greeter.leave().await?);
    }
    let (gets, posts) = (gets.end().await?, posts.end().await?);
    Ok(
        Verdict::new(gets.failed() + posts.failed() == 0 && codes == [Some(0); 4])
            .counted(&gets)
            .counted(&posts)
            .note(format!("exit codes {codes:?}")),
    )
}

/// Nothing fails, and a new node answers half a second after it is listed.
pub(crate) async fn scaled_up<B: Backend>() -> anyhow::Result<Verdict> {
    let mut system = SystemOn::<B>::start(&["v1"; 3]).await?;
    let gets = system.gets(300);
    let mut slowest = Duration::ZERO;
    for _ in 0..7 {
        let address = system.add("v1").await?.address.to_string();
        system.until_listed(&address).await?;
        let listed = Instant::now();
        let answers = || async { Ok(gets.answers_of(&address) > 0) };
        try_until("an answer of the new node", SECOND * 10, answers).await?;
        slowest = slowest.max(listed.elapsed());
    }
    for greeter in system.greeters.drain(..7) {
        greeter.leave().await?;
    }
    let gets = gets.end().await?;
    Ok(Verdict::new(gets.failed() == 0 && slowest <= SECOND / 2)
        .counted(&gets)
        .note(format!(
            "new nodes answer after {} ms at most",
            slowest.as_millis()
        )))
}

/// Nothing fails, and only v2 answers in the end.
pub(crate) async fn rolling<B: Backend>() -> anyhow::Result<Verdict> {
    let mut system = SystemOn::<B>::start(&["v1"; 3]).await?;
    let gets = system.gets(300);
    for _ in 0..3 {
        let address = system.add("v2").await?.address.to_string();
        system.until_listed(&address).await?;
        system.greeters.remove(0).leave().await?;
    }
    let gets = gets.end().await?;
    let after = system.gets(300);
    sleep(SECOND).await;
    let after = after.end().await?;
    let old = after.answers(|_, version| version == "v1");
    Ok(Verdict::new(gets.failed() + after.failed() + old == 0)
        .counted(&gets)
        .note(format!("then {} answers, {old} of v1", after.answered())))
}

/// No GET fails; the frozen node is set aside in two seconds, and back ten after it goes on. A
/// slow one is neither cut off nor set aside.
pub(crate) async fn frozen() -> anyhow::Result<Verdict> {
    let system = System::start(&["v1", "v1", "v1"]).await?;
    let (gets, slow) = (system.gets(100), system.slow(3));
    let frozen = &system.greeters[0];
    sleep(SECOND).await;
    frozen.signal("-STOP")?;
    let began = Instant::now();
    system.until_state(&frozen.address, "ejected").await?;
    let aside = began.elapsed();
    sleep(SECOND * 4).await;
    frozen.signal("-CONT")?;
    let began = Instant::now();
    system.until_state(&frozen.address, "up").await?;
    let back = began.elapsed();
    let (gets, slow) = (gets.end().await?, slow.end().await?);
    let others = system
        .states()
        .await?
        .values()
        .filter(|state| *state != "up")
        .count();
    Ok(Verdict::new(
        gets.failed() + slow.failed() == 0
            && aside <= SECOND * 2
            && back <= SECOND * 10
            && others == 0,
    )
    .counted(&gets)
    .note(format!(
        "{} of 5 s each, {} failed",
        slow.answered(),
        slow.failed()
    ))
    .note(format!(
        "aside after {:.1} s, back after {:.1} s",
        aside.as_secs_f64(),
        back.as_secs_f64()
    )))
}

/// Users see at most five of its answers, then it is set aside.
pub(crate) async fn sick() -> anyhow::Result<Verdict> {
    let system = System::start(&["v1", "v1"]).await?;
    let sick = Sick::start()?;
    let gets = system.gets(300);
    sleep(SECOND).await;
    system.put_node(&sick.address.to_string()).await;
    system.until_state(&sick.address, "ejected").await?;
    sleep(SECOND * 3).await; // probes go on, and find it as sick as before
    let gets = gets.end().await?;
    Ok(Verdict::new((1..=5).contains(&gets.failed())).counted(&gets))
}

/// All go on being asked: their answers are worth more than none.
pub(crate) async fn all_sick() -> anyhow::Result<Verdict> {
    let system = System::start(&[]).await?;
    let sick = [Sick::start()?, Sick::start()?, Sick::start()?];
    for node in &sick {
        system.put_node(&node.address.to_string()).await;
    }
    system.until_known(3).await?;
    let gets = system.gets(100);
    sleep(SECOND * 3).await;
    let gets = gets.end().await?;
    let answered: Vec<_> = sick.iter().map(Sick::answers).collect();
    let refused = system
        .metric(r#"gateway_refusals_total{reason="no_instance"}"#)
        .await?;
    let others = gets
        .failures()
        .filter(|failure| !failure.contains("500 "))
        .count();
    let held = refused == 0.0 && others == 0 && answered.iter().all(|count| *count > 20);
    Ok(Verdict::new(held)
        .note(format!(
            "{} requests, {answered:?} answers of 500",
            gets.failed()
        ))
        .note(format!("{refused} refused by the gateway")))
}

/// No GET fails, although nobody is at most of the addresses.
pub(crate) async fn dead_entries() -> anyhow::Result<Verdict> {
    let system = System::start(&["v1", "v1", "v1"]).await?;
    let gets = system.gets(300);
    sleep(SECOND).await;
    let dead: Vec<_> = (1..=50).map(|port| format!("127.0.0.9:{port}")).collect();
    join_all(dead.iter().map(|node| system.put_node(node))).await;
    system.until_known(53).await?;
    sleep(SECOND * 3).await;
    let gets = gets.end().await?;
    Ok(Verdict::new(gets.failed() == 0).counted(&gets))
}

/// The new entry stays, although the old one's lease ends and its process leaves late.
pub(crate) async fn same_address<B: Backend>() -> anyhow::Result<Verdict> {
    let mut system = SystemOn::<B>::start(&["v1", "v1"]).await?;
    let gets = system.gets(200);
    let address = system.greeters[0].address.to_string();
    drop(system.greeters.remove(0)); // its lease lives on
    system.add_at(&address, "v2").await?;
    let is_new = || async { Ok(gets.answers_of_both(&address, "v2") > 0) };
    try_until("the successor to answer", SECOND * 5, is_new).await?;
    sleep(TTL + SECOND * 2).await; // the old lease ends meanwhile
    let listed = system.states().await?.contains_key(&address);
    let gets = gets.end().await?;
    Ok(Verdict::new(gets.failed() == 0 && listed)
        .counted(&gets)
        .note(format!(
            "the new entry is {}there",
            if listed { "" } else { "not " }
        )))
}
