//! The request of `cdm services rollout`.

use serde_json::{Map, Value, json};

use crate::args::{GateArgs, RolloutArgs};

/// Only what was typed: the server has the defaults.
pub(super) fn rollout(args: RolloutArgs) -> Value {
    let mut body = Map::new();
    body.insert("promote".into(), args.promote.into());
    if let Some(image) = args.image {
        body.insert("imageTag".into(), image.into());
    }
    let scope = if args.sites.is_empty() { args.scope.into() } else { json!({ "sites": args.sites }) };
    body.insert("scope".into(), scope);
    if !args.waves.is_empty() {
        body.insert("waves".into(), args.waves.into());
    }
    if let Some(number) = args.max_concurrent {
        body.insert("maxConcurrent".into(), number.into());
    }
    if let Some(budget) = args.failure_budget {
        let budget = budget.parse::<u32>().map_or_else(|_| Value::from(budget), Value::from);
        body.insert("failureBudget".into(), budget);
    }
    if args.auto_rollback {
        body.insert("autoRollback".into(), true.into());
    }
    if let Some(bake) = args.bake {
        body.insert("bake".into(), bake.as_secs().into());
    }
    if let Some(gate) = gate(args.gate) {
        body.insert("gate".into(), gate);
    }
    Value::Object(body)
}

fn gate(args: GateArgs) -> Option<Value> {
    let mut gate = Map::new();
    gate.insert("path".into(), args.gate_path?.into());
    if let Some(status) = args.gate_status {
        gate.insert("status".into(), status.into());
    }
    if let Some(text) = args.gate_contains {
        gate.insert("contains".into(), text.into());
    }
    if let Some(ratio) = args.gate_max_latency_ratio {
        gate.insert("maxLatencyRatio".into(), ratio.into());
    }
    if let Some(settle) = args.gate_settle {
        gate.insert("settle".into(), settle.as_secs().into());
    }
    Some(Value::Object(gate))
}
