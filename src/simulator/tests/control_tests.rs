//! The control over HTTP, and the phone page.

use super::*;

#[tokio::test]
async fn the_control_has_the_powers_of_the_handle() {
    let scene = scene().await;
    let (status, rules) = scene
        .control(
            "POST",
            "/faults",
            Some(json!([{"kind": "too_many_requests", "retry_after_s": 1, "next": 2, "to": ADA}])),
        )
        .await;
    assert_eq!((status, &rules[0]["next"]), (201, &json!(2)));
    assert_eq!(scene.send(&[("To", ADA), ("From", WA), ("Body", "x")]).await.0, 429);
    assert_eq!(scene.control("GET", "/faults", None).await.1[0]["next"], 1);
    assert_eq!(scene.control("DELETE", "/faults", None).await.0, 204);

    let sid = scene.text("hello").await;
    assert_eq!(scene.control("POST", "/callbacks/step", Some(json!({"sid": sid}))).await.1, json!({"codes": [204]}));
    assert_eq!(scene.control("POST", "/callbacks/step", None).await.1, json!({"codes": [204]}));
    let read = json!({"sid": sid, "status": "read"});
    assert_eq!(scene.control("POST", "/callbacks/send", Some(read)).await.1, json!({"codes": [204]}));
    scene.inbox.answers.lock().push((200, "<Response><Message>Taken.</Message></Response>"));
    let reply = json!({"from": "+4915112345678", "text": "ACK"});
    assert_eq!(scene.control("POST", "/reply", Some(reply)).await.1["answers"], json!(["Taken."]));

    let (_, shown) = scene.control("GET", "/messages", None).await;
    let bodies: Vec<_> = shown["messages"].as_array().expect("messages").iter().map(|m| m["body"].clone()).collect();
    assert_eq!(bodies, ["hello", "ACK", "Taken."]);
    assert_eq!((&shown["messages"][0]["status"], &shown["manual"]), (&json!("read"), &json!(true)));
    assert_eq!(scene.control("GET", "/messages?phone=%2B1999", None).await.1["messages"], json!([]));
    let (_, stats) = scene.control("GET", "/stats", None).await;
    assert_eq!((&stats["create_calls"], &stats["created"], &stats["replies"]), (&json!(2), &json!(1), &json!(1)));
    assert_eq!(scene.control("POST", "/reset", None).await.0, 204);
    assert_eq!(scene.control("GET", "/stats", None).await.1["create_calls"], 0);
}

#[tokio::test]
async fn nonsense_is_refused_and_changes_nothing() {
    let scene = scene().await;
    let two = json!([{"kind": "outage"}, {"kind": "unheard_of"}]);
    assert_eq!(scene.control("POST", "/faults", Some(two)).await.0, 422);
    assert!(scene.sim.faults().is_empty(), "all or none");
    assert_eq!(scene.control("POST", "/callbacks/step", Some(json!({"sid": "SM0"}))).await.0, 404);
    assert_eq!(scene.control("POST", "/reply", Some(json!({"from": "+1", "tap": "Yes"}))).await.0, 404);
    let large = json!({"from": "+1", "text": "a".repeat(20_000)});
    assert_eq!(scene.control("POST", "/reply", Some(large)).await.0, 413);
}

#[tokio::test]
async fn pages_of_other_sites_are_kept_out() {
    let scene = scene().await;
    let reset = format!("{}/_simulator/reset", scene.simulator.url());
    let call = |site| scene.client.post(&reset).header("Sec-Fetch-Site", site).send();
    assert_eq!(call("cross-site").await.expect("an answer").status(), 403);
    assert_eq!(call("same-origin").await.expect("an answer").status(), 204);
}

#[tokio::test]
async fn the_phone_page_runs_nothing_but_its_own_script() {
    let scene = scene().await;
    for path in ["/", "/phone"] {
        let page = scene.client.get(format!("{}{path}", scene.simulator.url())).send().await.expect("a page");
        assert_eq!(page.status(), 200);
        let policy = page.headers()["content-security-policy"].to_str().expect("text").to_owned();
        assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        let html = page.text().await.expect("a page");
        assert_eq!(html.matches("<script>").count(), 1, "the policy names one script");
        assert_eq!(html.matches("<style>").count(), 1, "and one style");
        for risky in ["innerHTML", "insertAdjacentHTML", "document.write", "style=", "onclick=", "src=", "http://"] {
            assert!(!html.contains(risky), "{risky}");
        }
    }
}

#[tokio::test]
async fn watchers_hear_of_changes() {
    let scene = scene().await;
    let mut stream =
        scene.client.get(format!("{}/_simulator/stream", scene.simulator.url())).send().await.expect("a stream");
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let mut next = async || {
        let chunk = tokio::time::timeout(Duration::from_secs(10), stream.chunk()).await.expect("in time");
        String::from_utf8(chunk.expect("a chunk").expect("no end").to_vec()).expect("text")
    };
    assert_eq!(next().await, "data: 0\n\n");
    scene.text("x").await;
    assert_eq!(next().await, "data: 2\n\n");
}

#[tokio::test]
async fn an_embedded_router_answers_and_breaks_too() {
    let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
    let handle =
        SimulatorHandle::new(SimulatorConfig::default(), clock, Arc::new(SeededEntropy::new(1))).expect("a simulator");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/2010-04-01/Accounts/{AC}/Balance.json", listener.local_addr().expect("an address"));
    let app = router(handle.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let ask = || Client::new().get(&url).basic_auth(AC, Some("simulator-auth-token")).send();
    assert_eq!(ask().await.expect("an answer").status(), 200);
    handle.push_fault(FaultRule::always(Fault::Outage));
    let broken = match ask().await {
        Ok(answer) => answer.bytes().await.is_err(),
        Err(_) => true,
    };
    assert!(broken);
    handle.stop();
}

#[tokio::test]
async fn it_works_by_the_machines_clock_too() {
    let at_once = CallbackMode::Automatic {
        sent_after: Duration::ZERO,
        delivered_after: Duration::ZERO,
        read_after: Some(Duration::ZERO),
    };
    let config = SimulatorConfig { callbacks: at_once, ..SimulatorConfig::default() };
    let simulator =
        Simulator::start(config, Arc::new(SystemClock), Arc::new(SeededEntropy::new(1))).await.expect("a simulator");
    let sim = simulator.handle();
    let sent = Client::new()
        .post(format!("{}/2010-04-01/Accounts/{AC}/Messages.json", simulator.url()))
        .basic_auth(AC, Some("simulator-auth-token"))
        .form(&[("To", ADA), ("From", WA), ("Body", "x")]);
    assert_eq!(sent.send().await.expect("an answer").status(), 201);
    let mut changes = sim.changes();
    let read = changes.wait_for(|_| sim.messages()[0].status == SimStatus::Read);
    tokio::time::timeout(Duration::from_secs(10), read).await.expect("in time").expect("a change");
    simulator.shutdown().await.expect("an orderly end");
}

#[tokio::test]
#[ignore = "needs a Python with Twilio's library: see tests/sdk/python_sdk.py"]
async fn the_official_python_library_finds_nothing_amiss() {
    let python = std::env::var("TWILIO_SDK_PYTHON").expect("TWILIO_SDK_PYTHON names a Python with the twilio package");
    let scene = scene().await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdk/python_sdk.py");
    let mut command = std::process::Command::new(python);
    command.args([script, &scene.simulator.url(), AC, "token"]);
    let run = tokio::task::spawn_blocking(move || command.output()).await.expect("a task").expect("a run");
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{out}\n{err}");
}
