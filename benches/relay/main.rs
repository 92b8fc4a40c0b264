//! The benchmark.

mod load;
mod provider;
mod service;

use std::time::{Duration, Instant};

use crisis_relay::simulator::{CallbackMode, SimulatorConfig};

use self::load::{Form, Pace, Shot, Target, fire};
use self::provider::Provider;
use self::service::{SERVICE_KEY, Service};

fn event(run: u64, no: usize) -> Form {
    let body = format!(
        r#"{{"user_id":"student-{run}-{no}","crisis_score":0.93,"source":"chat","message":"I cannot go on like this","model_version":"risk-2026.11","emergency_override":{{"by":"Duty doctor","reason":"life at risk"}}}}"#
    );
    Form { headers: vec![("idempotency-key", format!("event-{run}-{no}"))], body }
}

fn percentile(sorted: &[Duration], share: f64) -> Duration {
    let at = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len()) - 1;
    sorted[at]
}

fn ms(duration: Duration) -> String {
    format!("{:.2}", duration.as_secs_f64() * 1e3)
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let rate: f64 = args.get(1).and_then(|a| a.parse().ok()).unwrap_or(1000.0);
    let count: usize = args.get(2).and_then(|a| a.parse().ok()).unwrap_or(10000);
    let settings = SimulatorConfig { callbacks: CallbackMode::Manual, ..SimulatorConfig::default() };
    let provider = Provider::start(settings).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let service = Service::start(folder.path(), provider.address, &[]).unwrap();
    println!("start {:?} rss {} MB", begun.elapsed(), service.usage().rss >> 20);
    for run in 0..3 {
        provider.arrivals.clear();
        let before = service.usage();
        let me = service::usage(std::process::id());
        let target = Target {
            address: service.address,
            path: "/api/v1/crisis/events".to_owned(),
            headers: vec![
                ("content-type".to_owned(), "application/json".to_owned()),
                ("authorization".to_owned(), format!("Bearer {SERVICE_KEY}")),
            ],
            request: Box::new(move |no| event(run, no)),
        };
        let start = Instant::now();
        let pace = if rate > 0.0 { Pace::PerSecond(rate) } else { Pace::AtOnce { connections: 256 } };
        let shots = fire(target, pace, count);
        let answered = start.elapsed();
        while provider.arrivals.count() < count && start.elapsed() < answered + Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let all = provider.arrivals.last().unwrap() - start;
        let after = service.usage();
        let me_after = service::usage(std::process::id());
        let words = provider.arrivals.by_word();
        let ok: Vec<&Shot> = shots.iter().filter(|s| s.status == 202).collect();
        if let Some(bad) = shots.iter().find(|s| s.status != 202) {
            println!("{} {}", bad.status, String::from_utf8_lossy(&bad.answer));
        }
        let mut accept: Vec<Duration> = ok.iter().map(|s| s.answered - s.sent).collect();
        let mut lag: Vec<Duration> = ok.iter().map(|s| s.sent - s.due).collect();
        let mut through: Vec<Duration> = ok
            .iter()
            .filter_map(|s| {
                let json: serde_json::Value = serde_json::from_slice(&s.answer).ok()?;
                let at = words.get(json["reference"].as_str()?)?;
                Some(at[0] - s.sent)
            })
            .collect();
        accept.sort();
        through.sort();
        lag.sort();
        println!(
            "{} ok of {count}, {} at provider ({} joined), answered {:?}, all {:?}",
            ok.len(),
            provider.arrivals.count(),
            through.len(),
            answered,
            all
        );
        if !accept.is_empty() && !through.is_empty() {
            println!(
                "  accept p50 {} p99 {} | provider p50 {} p99 {} max {} | lag p50 {} p99 {} | cpu/alert {} us (mine {} us) | rss {} MB peak {}",
                ms(percentile(&accept, 0.5)),
                ms(percentile(&accept, 0.99)),
                ms(percentile(&through, 0.5)),
                ms(percentile(&through, 0.99)),
                ms(*through.last().unwrap()),
                ms(percentile(&lag, 0.5)),
                ms(percentile(&lag, 0.99)),
                (after.cpu - before.cpu).as_micros() / count as u128,
                (me_after.cpu - me.cpu).as_micros() / count as u128,
                after.rss >> 20,
                after.rss_peak >> 20
            );
        }
    }
}
