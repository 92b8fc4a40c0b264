//! What goes wrong on purpose, seen over HTTP.

use super::*;

fn hello() -> [(&'static str, &'static str); 3] {
    [("To", ADA), ("From", WA), ("Body", "hello")]
}

#[tokio::test]
async fn refusals_carry_code_status_and_retry_after_and_make_nothing() {
    let scene = scene().await;
    let cases = [
        (Fault::TooManyRequests { retry_after_s: Some(3) }, 429, 20429, Some("3")),
        (Fault::TooManyRequests { retry_after_s: None }, 429, 20429, None),
        (Fault::ServerError { http_status: 500, retry_after_s: None }, 500, 20500, None),
        (Fault::ServerError { http_status: 503, retry_after_s: Some(1) }, 503, 20503, Some("1")),
        (Fault::Refused { code: 21610, http_status: 400 }, 400, 21610, None),
    ];
    for (fault, status, code, retry_after) in cases {
        scene.sim.push_fault(FaultRule::once(fault));
        let response = scene.post(&hello()).send().await.expect("an answer");
        assert_eq!(response.headers().get("retry-after").map(|value| value.to_str().expect("text")), retry_after);
        let (answered, error) = read(response).await;
        assert_eq!((answered, &error["code"], &error["status"]), (status, &json!(code), &json!(status)));
    }
    assert!(scene.sim.messages().is_empty());
    assert_eq!(scene.send(&hello()).await.0, 201, "and then it is over");
}

#[tokio::test]
async fn answers_that_never_come_leave_or_do_not_leave_a_message() {
    let scene = scene().await;
    let list = "/Messages.json?To=whatsapp%3A%2B4915112345678";
    // What the fault is, whether a message is there afterwards, and whether lists show it.
    let cases = [
        (Fault::AcceptThenTimeOut, true, true),
        (Fault::AcceptThenTimeOutHidden, true, false),
        (Fault::TimeOutWithoutAccepting, false, false),
        (Fault::DropBeforeAccepting, false, false),
        (Fault::DropAfterAccepting, true, true),
    ];
    for (fault, made, listed) in cases {
        scene.sim.reset();
        scene.sim.push_fault(FaultRule::once(fault.clone()));
        let holds = !matches!(fault, Fault::DropBeforeAccepting | Fault::DropAfterAccepting);
        let call = tokio::spawn(scene.post(&hello()).send());
        let mut changes = scene.sim.changes();
        changes.wait_for(|_| scene.sim.stats().create_calls == 1).await.expect("a call");
        if holds {
            assert!(!call.is_finished(), "{fault:?}");
            // The message is made before the connection is held; whoever waits is let go when the time is over.
            while !call.is_finished() {
                scene.clock.advance(Duration::from_secs(60));
                tokio::task::yield_now().await;
            }
        }
        let error = call.await.expect("a task").expect_err("no answer");
        assert!(!error.is_connect() && !error.is_status(), "{fault:?}: {error:?}");
        assert_eq!(scene.sim.messages().len(), usize::from(made), "{fault:?}");
        let shown = scene.get(list).await.1["messages"].as_array().expect("messages").len();
        assert_eq!(shown, usize::from(listed), "{fault:?}");
        if made {
            let sid = scene.sim.messages()[0].sid.clone();
            assert_eq!(scene.get(&format!("/Messages/{sid}.json")).await.0, 200, "{fault:?}");
        }
    }
}

#[tokio::test]
async fn a_client_that_gives_up_leaves_no_call_under_way() {
    let scene = scene().await;
    scene.sim.push_fault(FaultRule::once(Fault::AcceptThenTimeOut));
    let call = scene.post(&hello()).timeout(Duration::from_millis(100)).send().await;
    assert!(call.expect_err("no answer").is_timeout());
    assert_eq!(scene.sim.messages().len(), 1);
    let in_flight = || scene.sim.world.counters.in_flight.load(std::sync::atomic::Ordering::Relaxed);
    let gone = tokio::time::timeout(Duration::from_secs(10), async {
        while in_flight() > 0 {
            tokio::task::yield_now().await;
        }
    });
    gone.await.expect("the held call ends when its caller has gone");
}

#[tokio::test]
async fn unreadable_answers_are_unreadable() {
    let scene = scene().await;
    scene.sim.push_fault(FaultRule::once(Fault::HtmlBadGateway { accepted: false }));
    scene.sim.push_fault(FaultRule::once(Fault::HtmlBadGateway { accepted: true }));
    scene.sim.push_fault(FaultRule::once(Fault::EmptyAnswer));
    assert_eq!(scene.send(&hello()).await, (502, Value::Null));
    assert_eq!(scene.sim.messages().len(), 0);
    assert_eq!(scene.send(&hello()).await, (502, Value::Null));
    assert_eq!(scene.sim.messages().len(), 1);
    assert_eq!(scene.send(&hello()).await, (201, Value::Null));
    assert_eq!(scene.sim.messages().len(), 2);
}

#[tokio::test]
async fn a_slow_answer_comes_when_the_clock_says_so() {
    let scene = scene().await;
    scene.sim.push_fault(FaultRule::once(Fault::Slow { ms: 5_000 }));
    let call = tokio::spawn(scene.post(&hello()).send());
    let mut changes = scene.sim.changes();
    changes.wait_for(|_| scene.sim.messages().len() == 1).await.expect("a message");
    assert!(!call.is_finished(), "made at once, answered later");
    while !call.is_finished() {
        scene.clock.advance(Duration::from_secs(5));
        tokio::task::yield_now().await;
    }
    assert_eq!(call.await.expect("a task").expect("an answer").status(), 201);
}

#[tokio::test]
async fn an_outage_drops_every_call_until_it_is_over() {
    let scene = scene().await;
    scene.sim.push_fault(FaultRule::always(Fault::Outage));
    for _ in 0..3 {
        assert!(scene.post(&hello()).send().await.is_err());
        let list = scene.client.get(scene.api("/Messages.json")).basic_auth(AC, Some("token"));
        assert!(list.send().await.is_err());
    }
    let (status, _) = scene.control("DELETE", "/faults", None).await;
    assert_eq!(status, 204, "the control stays in reach");
    assert_eq!(scene.send(&hello()).await.0, 201);
    assert!(scene.sim.messages().len() == 1);
}

#[tokio::test]
async fn lookups_can_fail_too() {
    let scene = scene().await;
    scene.sim.push_fault(FaultRule::once(Fault::TooManyRequests { retry_after_s: None }).on(Scope::Lookups));
    assert_eq!(scene.send(&hello()).await.0, 201, "a create call is no look-up");
    assert_eq!(scene.get("/Messages.json").await.0, 429);
    assert_eq!(scene.get("/Messages.json").await.0, 200);
    let answered: Vec<bool> = scene.sim.listings().iter().map(|listing| listing.answered).collect();
    assert_eq!(answered, [false, true], "who asked for a list is remembered, and what came of it");
}

#[tokio::test]
async fn a_message_that_fails_later_says_why() {
    let scene = scene().await;
    scene.sim.push_fault(FaultRule::once(Fault::FailsLater { code: 63016, failed: false }).to(ADA));
    let sid = scene.text("x").await;
    while !scene.sim.step_all().await.is_empty() {}
    assert_eq!(scene.statuses(), ["sent", "undelivered"]);
    let hook = scene.inbox.hooks.lock()[1].clone();
    assert_eq!((hook.get("ErrorCode"), hook.get("EventType")), ("63016", "UNDELIVERED"));
    let (_, message) = scene.get(&format!("/Messages/{sid}.json")).await;
    assert_eq!((&message["error_code"], &message["status"]), (&json!(63016), &json!("undelivered")));

    scene.inbox.hooks.lock().clear();
    scene.sim.push_fault(FaultRule::once(Fault::FailsLater { code: 30001, failed: true }));
    scene.text("y").await;
    while !scene.sim.step_all().await.is_empty() {}
    assert_eq!(scene.statuses(), ["failed"]);
}

#[tokio::test]
async fn callbacks_get_lost_repeated_reordered_early_and_strange() {
    let scene = scene().await;
    let run = async |fault: Option<Fault>| {
        scene.sim.reset();
        scene.inbox.hooks.lock().clear();
        if let Some(fault) = fault {
            scene.sim.push_fault(FaultRule::once(fault));
        }
        scene.text("x").await;
        let early = scene.statuses();
        for _ in 0..4 {
            scene.sim.step_all().await;
        }
        (early, scene.statuses())
    };
    assert_eq!(run(None).await.1, ["sent", "delivered", "read"]);
    assert_eq!(run(Some(Fault::CallbacksLost)).await.1, Vec::<String>::new());
    assert_eq!(scene.sim.messages()[0].status, SimStatus::Read, "it went its way all the same");
    assert_eq!(
        run(Some(Fault::CallbacksRepeated { times: 1 })).await.1,
        ["sent", "sent", "delivered", "delivered", "read", "read"]
    );
    assert_eq!(run(Some(Fault::CallbacksReordered)).await.1, ["delivered", "sent", "read"]);
    let (early, all) = run(Some(Fault::CallbackEarly)).await;
    assert_eq!((early, all), (vec!["sent".to_owned()], vec!["sent".to_owned(), "delivered".into(), "read".into()]));
    run(Some(Fault::CallbackExtraFields)).await;
    let hook = scene.inbox.hooks.lock()[0].clone();
    assert!(!hook.get("FutureField").is_empty());
    let url = format!("{}{}", scene.receiver, hook.path);
    assert_eq!(hook.headers["x-twilio-signature"], sign::signature("token", &url, &hook.fields));
    assert_eq!(run(Some(Fault::NoReceipt)).await.1, ["sent"]);
}

#[tokio::test]
async fn any_callback_can_be_sent_by_hand() {
    let scene = scene().await;
    let sid = scene.text("x").await;
    let told = [(SimStatus::Delivered, None), (SimStatus::Sent, None), (SimStatus::Failed, Some(63016))];
    for (status, code) in told {
        assert_eq!(scene.sim.send_callback(&sid, status, code).await, Ok(Some(204)));
    }
    assert_eq!(scene.statuses(), ["delivered", "sent", "failed"]);
    assert_eq!(scene.sim.messages()[0].status, SimStatus::Delivered, "the resource does not go back");
    assert_eq!(scene.sim.step("SM0").await, Err(UnknownMessage("SM0".to_owned())));
}

#[tokio::test]
async fn what_goes_wrong_can_be_configured_from_the_start() {
    let rule = FaultRule::once(Fault::TooManyRequests { retry_after_s: None });
    let scene = scene_with(|config| config.faults = vec![rule]).await;
    assert_eq!(scene.send(&hello()).await.0, 429);
    assert_eq!(scene.send(&hello()).await.0, 201);
}

#[tokio::test]
async fn an_early_callback_strands_no_message_whose_caller_has_gone() {
    let at_once =
        CallbackMode::Automatic { sent_after: Duration::ZERO, delivered_after: Duration::ZERO, read_after: None };
    let scene = scene_with(|config| config.callbacks = at_once).await;
    scene.sim.push_fault(FaultRule::once(Fault::CallbackEarly));
    let callback = scene.callback("");
    let fields = [("To", ADA), ("From", WA), ("Body", "x"), ("StatusCallback", callback.as_str())];
    let call = tokio::spawn(scene.post(&fields).send());
    let mut changes = scene.sim.changes();
    changes.wait_for(|_| scene.sim.messages().len() == 1).await.expect("a message");
    call.abort();
    let arrived = changes.wait_for(|_| scene.sim.messages()[0].status == SimStatus::Delivered);
    tokio::time::timeout(Duration::from_secs(10), arrived).await.expect("in time").expect("a change");
}
