// SPDX-License-Identifier: Apache-2.0
//! Reads checkpoints with candle: neither temper's code nor transformers' model is in it. Takes and answers the lines
//! that mlx_reader.py describes.

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};

use candle_core::{safetensors, DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::smol::smollm3;
use candle_transformers::models::{
    gemma2, gemma3, granite, llama, mistral, mixtral, olmo2, phi3, qwen2, qwen3, qwen3_moe,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Reads on in a document: the logits after the last of `tokens`, [1, tokens], before which others have been read, as
/// many as the second argument says.
type Document = Box<dyn FnMut(&Tensor, usize) -> candle_core::Result<Tensor>>;
/// Begins a document.
type Model = Box<dyn Fn() -> Document>;

#[derive(Deserialize)]
struct Request {
    model: PathBuf,
    prompt: Vec<u32>,
    new_tokens: usize,
}

#[derive(Serialize)]
struct Answer {
    logits: Vec<Vec<f32>>,
    tokens: Vec<u32>,
}

struct Checkpoint {
    config: Value,
    weights: VarBuilder<'static>, // in fp32
}

impl Checkpoint {
    fn read(directory: &Path) -> Result<Self> {
        let mut config: Value = serde_json::from_slice(&fs::read(directory.join("config.json"))?)?;
        config["use_flash_attn"] = false.into(); // candle's own, which it asks for in Mixtral's
        let mut tensors = HashMap::new();
        for entry in fs::read_dir(directory)? {
            let file = entry?.path();
            if file.extension().is_some_and(|suffix| suffix == "safetensors") {
                tensors.extend(safetensors::load(file, &Device::Cpu)?);
            }
        }
        let weights = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
        Ok(Self { config, weights })
    }

    fn load<C: DeserializeOwned, M: Clone + 'static>(
        self,
        new: impl Fn(&C, VarBuilder<'static>) -> candle_core::Result<M>,
        read: fn(&mut M, &Tensor, usize) -> candle_core::Result<Tensor>,
    ) -> Result<Model> {
        let unread = new(&serde_json::from_value(self.config)?, self.weights)?;
        Ok(Box::new(move || {
            let mut model = unread.clone(); // with an empty cache
            Box::new(move |tokens, position| read(&mut model, tokens, position))
        }))
    }
}

fn new_llama(config: &llama::LlamaConfig, weights: VarBuilder) -> candle_core::Result<(llama::Llama, llama::Cache)> {
    let config = config.clone().into_config(false);
    let cache = llama::Cache::new(true, DType::F32, &config, &Device::Cpu)?;
    Ok((llama::Llama::load(weights, &config)?, cache))
}

fn new_granite(
    config: &granite::GraniteConfig,
    weights: VarBuilder,
) -> candle_core::Result<(granite::Granite, granite::Cache)> {
    let config = config.clone().into_config(false);
    let cache = granite::Cache::new(true, DType::F32, &config, &Device::Cpu)?;
    Ok((granite::Granite::load(weights, &config)?, cache))
}

fn load(checkpoint: Checkpoint) -> Result<Model> {
    let family = checkpoint.config["model_type"].as_str().unwrap_or_default().to_owned();
    match family.as_str() {
        "gemma2" => {
            checkpoint.load(|config, weights| gemma2::Model::new(false, config, weights), gemma2::Model::forward)
        }
        "gemma3_text" => {
            checkpoint.load(|config, weights| gemma3::Model::new(false, config, weights), gemma3::Model::forward)
        }
        "granite" => {
            checkpoint.load(new_granite, |(model, cache), tokens, position| model.forward(tokens, position, cache))
        }
        "llama" => {
            checkpoint.load(new_llama, |(model, cache), tokens, position| model.forward(tokens, position, cache))
        }
        "mistral" => checkpoint.load(mistral::Model::new, mistral::Model::forward),
        "mixtral" => checkpoint.load(mixtral::Model::new, mixtral::Model::forward),
        "olmo2" => checkpoint.load(olmo2::Model::new, olmo2::Model::forward),
        "phi3" => checkpoint.load(phi3::Model::new, phi3::Model::forward),
        "qwen2" => checkpoint.load(qwen2::ModelForCausalLM::new, qwen2::ModelForCausalLM::forward),
        "qwen3" => checkpoint.load(qwen3::ModelForCausalLM::new, qwen3::ModelForCausalLM::forward),
        "qwen3_moe" => checkpoint.load(qwen3_moe::ModelForCausalLM::new, qwen3_moe::ModelForCausalLM::forward),
        "smollm3" => checkpoint.load(smollm3::ModelForCausalLM::new, smollm3::ModelForCausalLM::forward),
        _ => Err(format!("candle knows no model of the type '{family}'").into()),
    }
}

fn logits_after(document: &mut Document, tokens: &[u32], position: usize) -> Result<Vec<f32>> {
    let tokens = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
    Ok(document(&tokens, position)?.flatten_all()?.to_vec1()?)
}

fn argmax(logits: &[f32]) -> u32 {
    let largest = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    largest.map_or(0, |(token, _)| token as u32)
}

fn answer(line: &str) -> Result<Answer> {
    let request: Request = serde_json::from_str(line)?;
    let model = load(Checkpoint::read(&request.model)?)?;
    // Its models say logits of the last position alone: each beginning of the prompt is a document.
    let logits = (1..=request.prompt.len())
        .map(|end| logits_after(&mut model(), &request.prompt[..end], 0))
        .collect::<Result<Vec<_>>>()?;
    let mut document = model();
    let mut last = logits_after(&mut document, &request.prompt, 0)?;
    let mut tokens = Vec::new();
    while tokens.len() < request.new_tokens {
        let position = request.prompt.len() + tokens.len();
        tokens.push(argmax(&last));
        last = logits_after(&mut document, &tokens[tokens.len() - 1..], position)?;
    }
    Ok(Answer { logits, tokens })
}

fn main() -> Result<()> {
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let text = match answer(&line?) {
            Ok(answer) => serde_json::to_string(&answer)?,
            Err(error) => serde_json::json!({ "error": error.to_string() }).to_string(),
        };
        writeln!(out, "{text}")?;
        out.flush()?;
    }
    Ok(())
}
