"""The work of the crate `benchmarks` with PyTorch, diffusers and transformers; see its documentation.

    python crates/benchmarks/python/work.py WORK --model DIR [--loop lean|authors] [--batch-size N] ...

Prints the same line of JSON as `attndreambooth bench WORK`. Inputs are drawn from the same seeds, and the check is the same
number. A training step comes in two loops:

- `authors`: what AttnDreamBooth's train_attndreambooth.py does in a step, written anew: the VAE's encoding, the text
  encoder with its graph and its own gradients, attention probabilities of all 77 tokens kept for all layers,
  torch.optim.AdamW as it comes;
- `lean`: the same step with every saving that PyTorch has to offer without other packages: frozen models without
  gradients, the prompt encoded once where it does not change, scaled_dot_product_attention but where the maps of the two
  tokens are needed, AdamW(fused=True).

Steps of the other methods have the loop `lean` only; LoRA and OFT are peft's, ViCo's blocks diffusers'. What begins at random has
normal numbers of fixed seeds here and there.

`--compile` additionally compiles the U-Net (torch.compile), where a compiler is there; the line has the seconds of the first run, in
which that happens.
"""

import argparse
import json
import math
import resource
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

PLACEHOLDER = "<new>"
CATEGORY = "photo"
# Learning rate, lambda_mu, lambda_sigma of each stage; the paper's.
STAGES = {1: (1e-3, 0.1, 0.0), 2: (2e-5, 2.0, 5.0), 3: (2e-6, 2.0, 5.0)}
STEPS = {"embedding-step": 1, "cross-attention-step": 2, "unet-step": 3}


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def spread_timesteps(batch):
    return torch.tensor([1000 * i // (batch + 1) for i in range(1, batch + 1)])


def size(xs):
    return xs.float().abs().mean()


def side(args):
    if args.resolution:
        return args.resolution
    config = json.loads((Path(args.model) / "unet/config.json").read_text())
    return config["sample_size"] * 8


def images(args):
    pixels = (args.batch_size, 3, side(args), side(args))
    return torch.rand(pixels, generator=torch.Generator().manual_seed(3)) * 2 - 1


def latents(args, channels=4):
    return normal(1, args.batch_size, channels, side(args) // 8, side(args) // 8)


def load(args, component, dtype=None):
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

    folder, dtype = f"{args.model}/{component}", dtype or args.dtype
    if component == "text_encoder":
        return CLIPTextModel.from_pretrained(folder, dtype=dtype).eval().to(args.device)
    model = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[component]
    return model.from_pretrained(folder, torch_dtype=dtype).eval().to(args.device)


class KeepEverything:
    """The authors' processor: probabilities of all tokens, kept."""

    def __init__(self):
        self.maps = []

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, **_):
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        key = attn.head_to_batch_dim(attn.to_k(context))
        value = attn.head_to_batch_dim(attn.to_v(context))
        probabilities = attn.get_attention_scores(query, key, attention_mask)
        if encoder_hidden_states is not None:
            batch = hidden_states.shape[0]
            self.maps.append(probabilities.unflatten(0, (batch, attn.heads)).permute(0, 3, 1, 2))
        out = attn.batch_to_head_dim(torch.bmm(probabilities, value))
        return attn.to_out[1](attn.to_out[0](out))

    def loss(self, position, lambda_mu, lambda_sigma):
        total = 0.0
        for map in self.maps:
            new, category = map[:, position].float(), map[:, position + 1].float()
            for sample in range(len(map)):
                total = total + lambda_mu * F.mse_loss(new[sample].mean(), category[sample].mean())
                total = total + lambda_sigma * F.mse_loss(new[sample].var(), category[sample].var())
        return total / len(self.maps)


class KeepStatistics:
    """Explicit probabilities for cross-attention alone, of which mean and variance of two tokens are kept."""

    def __init__(self):
        self.maps, self.position = [], 0

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, **_):
        heads = lambda xs: xs.unflatten(2, (attn.heads, -1)).transpose(1, 2)
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = heads(attn.to_q(hidden_states)), heads(attn.to_k(context)), heads(attn.to_v(context))
        if encoder_hidden_states is None:
            out = F.scaled_dot_product_attention(query, key, value)
        else:
            probabilities = ((query * attn.scale) @ key.transpose(-1, -2)).softmax(-1)
            two = probabilities[..., self.position : self.position + 2].float()
            self.maps.append(torch.var_mean(two, (1, 2)))
            out = probabilities @ value
        return attn.to_out[1](attn.to_out[0](out.transpose(1, 2).flatten(2)))

    def loss(self, position, lambda_mu, lambda_sigma):
        variance = torch.stack([variance for variance, _ in self.maps])
        mean = torch.stack([mean for _, mean in self.maps])
        gap = lambda xs: (xs[..., 0] - xs[..., 1]).square().sum()
        return (lambda_mu * gap(mean) + lambda_sigma * gap(variance)) / len(self.maps)


class Training:
    """A stage on its way."""

    def __init__(self, args, stage, batches=None):
        from diffusers import DDPMScheduler
        from transformers import CLIPTokenizer

        self.args, self.stage, self.lean = args, stage, args.loop == "lean"
        self.autocast = torch.autocast(args.device, args.dtype, enabled=args.dtype != torch.float32)
        self.unet, self.vae = load(args, "unet", torch.float32), load(args, "vae", torch.float32)
        self.text_encoder = load(args, "text_encoder", torch.float32)
        self.schedule = DDPMScheduler.from_pretrained(f"{args.model}/scheduler")
        self.tokenizer = tokenizer = CLIPTokenizer.from_pretrained(f"{args.model}/tokenizer")
        category = args.category or CATEGORY
        tokenizer.add_tokens(PLACEHOLDER)
        self.text_encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        self.vae.requires_grad_(False)
        self.unet.requires_grad_(False)
        if self.lean:
            self.text_encoder.requires_grad_(False)
        self.table = self.text_encoder.get_input_embeddings()
        self.ids = self.encode([f"a photo of a {PLACEHOLDER} {category}"])
        self.placeholder = tokenizer.convert_tokens_to_ids(PLACEHOLDER)
        self.position = torch.where(self.ids[0] == self.placeholder)[0].item()
        with torch.no_grad():
            self.table.weight[self.placeholder] = self.table.weight[self.ids[0, self.position + 1]]
        self.learned = torch.nn.Parameter(self.table.weight[self.placeholder].detach().clone())
        self.processor = KeepStatistics() if self.lean else KeepEverything()
        self.processor.position = self.position
        self.unet.set_attn_processor(self.processor)
        self.start(stage)
        if args.compile:
            self.unet.compile()
        if batches is None:
            shape = latents(args, self.unet.config.in_channels).shape
            same = (images(args), normal(6, *shape), normal(5, *shape), spread_timesteps(args.batch_size))
            batches = lambda: same
        self.batches = batches

    def start(self, stage, learning_rate=None):
        self.stage, self.constant = stage, None
        parameters = [self.learned]
        self.learned.requires_grad_(stage == 1)
        if stage > 1:
            parameters = [p for name, p in self.unet.named_parameters() if stage == 3 or "attn2" in name]
        for parameter in parameters:
            parameter.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(parameters, lr=learning_rate or STAGES[stage][0], fused=self.lean or None)

    def encode(self, prompts):
        length = self.text_encoder.config.max_position_embeddings
        ids = self.tokenizer(prompts, padding="max_length", max_length=length, return_tensors="pt").input_ids
        return ids.to(self.args.device)

    def text(self, batch):
        """Hidden states of the prompt, one for each sample."""
        if not self.lean:
            return self.states(self.ids.expand(batch, -1))
        if self.stage == 1:
            return self.states(self.ids).expand(batch, -1, -1)
        if self.constant is None:
            with torch.no_grad():
                self.constant = self.states(self.ids)
        return self.constant.expand(batch, -1, -1)

    def states(self, ids):
        """With what is learned in the placeholder's place, as the authors do it too."""
        place = (ids == self.placeholder).unsqueeze(-1)
        hook = self.table.register_forward_hook(lambda *call: torch.where(place, self.learned, call[-1]))
        states = self.text_encoder(ids).last_hidden_state
        hook.remove()
        return states

    def step(self):
        device = self.args.device
        pixels, posterior_noise, noise, timesteps = (xs.to(device) for xs in self.batches())
        batch = len(pixels)
        with self.autocast:
            with torch.set_grad_enabled(not self.lean):
                posterior = self.vae.encode(pixels).latent_dist
            latents = (posterior.mean + posterior.std * posterior_noise).float() * self.vae.config.scaling_factor
            noisy = self.schedule.add_noise(latents, noise, timesteps)
            text = self.text(batch)
            self.processor.maps.clear()
            prediction = self.unet(noisy, timesteps, text).sample
            diffusion = F.mse_loss(prediction.float(), noise)
            attention = self.processor.loss(self.position, *STAGES[self.stage][1:])
        loss = diffusion + attention
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=self.lean)
        if not self.lean:
            # Nobody asks for the text encoder's gradients, but they are made.
            self.text_encoder.zero_grad()
        # Both are shown in the progress bar, as the authors' and as ours.
        return torch.tensor(diffusion.item() + attention.item())


class DetachFirst:
    """Custom Diffusion: no gradient reaches the keys and values of the first position."""

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, **_):
        heads = lambda xs: xs.unflatten(2, (attn.heads, -1)).transpose(1, 2)
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        if encoder_hidden_states is not None:
            key, value = (torch.cat([xs[:, :1].detach(), xs[:, 1:]], 1) for xs in (key, value))
        out = F.scaled_dot_product_attention(heads(query), heads(key), heads(value))
        return attn.to_out[1](attn.to_out[0](out.transpose(1, 2).flatten(2)))


ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
TEMPLATES = Path(__file__).resolve().parents[2] / "prompts/templates"
TEMPLATES_OF = {"textual-inversion": "photo27", "neti": "photo27", "vico": "authors81"}


def begin(named):
    """Parameters that begin at random, by the order of their names; those of norms around 1."""
    named = sorted(named)
    with torch.no_grad():
        for number, (name, parameter) in enumerate(named):
            offset = 1.0 if parameter.ndim == 1 and name.endswith("weight") else 0.0
            parameter.copy_(normal(100 + number, *parameter.shape) * 0.02 + offset)
    return [parameter.requires_grad_(True) for _, parameter in named]


class OtherMethod(Training):
    """A step of another method, by its recipe; with prior preservation half of the batch are class images."""

    def __init__(self, args):
        self.name = args.work.removesuffix("-step")
        super().__init__(args, 3 if self.name == "attndreambooth-lora" else 1)

    def start(self, stage, learning_rate=None):
        from diffusers.models.attention_processor import AttnProcessor2_0

        self.stage, self.constant, self.clipped = stage, None, []
        category = self.args.category or CATEGORY
        subject, batch = f"{PLACEHOLDER} {category}", self.args.batch_size
        prompts, classes = [f"a photo of {subject}"], []
        if self.name in TEMPLATES_OF:
            text = (TEMPLATES / f"{TEMPLATES_OF[self.name]}.txt").read_text()
            lines = [line for line in text.splitlines() if line and not line.startswith("#")]
            prompts = [lines[i % len(lines)].replace("[V]", PLACEHOLDER) for i in range(batch)]
        elif self.name in {"ti-db", "attndreambooth-lora"}:
            prompts = [f"a photo of a {subject}"]
        elif self.name == "custom-diffusion":
            prompts, classes = [f"photo of a {subject}"], [category]
        elif self.name in {"oft", "coft"}:
            classes = [f"a photo of a {category}"]
        self.prior = bool(classes)
        self.ids = self.encode(prompts)
        self.class_ids = self.encode(classes) if classes else None

        if self.name != "attndreambooth-lora":
            self.unet.set_attn_processor(DetachFirst() if self.name == "custom-diffusion" else AttnProcessor2_0())
        self.embedding = self.name in {"textual-inversion", "ti-db", "custom-diffusion", "vico"}
        self.learned.requires_grad_(self.embedding)
        if self.name in {"oft", "coft"}:
            from peft import OFTConfig, inject_adapter_in_model

            blocks = {"r": 4, "oft_block_size": 0, "use_cayley_neumann": False}
            config = OFTConfig(target_modules=ATTENTION, coft=self.name == "coft", eps=6e-5, **blocks)
            self.unet = inject_adapter_in_model(config, self.unet)
        elif self.name in {"lora", "attndreambooth-lora"}:
            from peft import LoraConfig, inject_adapter_in_model

            self.unet = inject_adapter_in_model(LoraConfig(r=8, lora_alpha=8, target_modules=ATTENTION), self.unet)
        elif self.name in {"dreambooth", "ti-db"}:
            self.unet.requires_grad_(True)
        elif self.name == "custom-diffusion":
            for name, parameter in self.unet.named_parameters():
                parameter.requires_grad_("attn2.to_k" in name or "attn2.to_v" in name)
        of_unet = [p for p in self.unet.parameters() if p.requires_grad]
        parameters = of_unet + [self.learned] * self.embedding + self.added()
        if self.name == "ti-db":
            self.clipped = of_unet
        elif self.name not in {"textual-inversion", "attndreambooth-lora", "neti", "vico"}:
            self.clipped = parameters
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-6, fused=True)

    def added(self):
        """What is put beside the model, as it begins."""
        return []

    def predict(self, noisy, timesteps, text):
        """With further terms of the loss."""
        return self.unet(noisy, timesteps, text).sample, []

    def text(self, batch):
        subjects = batch // 2 if self.prior else batch
        with torch.set_grad_enabled(self.embedding):
            if self.embedding or self.constant is None:
                self.constant = self.states(self.ids)
            states = self.constant
        states = states.expand(subjects, -1, -1)
        if self.class_ids is None:
            return states
        if not hasattr(self, "class_states"):
            with torch.no_grad():
                self.class_states = self.states(self.class_ids)
        return torch.cat([states, self.class_states.expand(batch - subjects, -1, -1)])

    def step(self):
        device = self.args.device
        pixels, posterior_noise, noise, timesteps = (xs.to(device) for xs in self.batches())
        batch = len(pixels)
        with self.autocast:
            with torch.no_grad():
                posterior = self.vae.encode(pixels).latent_dist
            latents = (posterior.mean + posterior.std * posterior_noise).float() * self.vae.config.scaling_factor
            noisy = self.schedule.add_noise(latents, noise, timesteps)
            text = self.text(batch)
            self.processor.maps.clear()
            prediction, further = self.predict(noisy, timesteps, text)
            if self.prior:
                halves = zip(prediction.float().chunk(2), noise.chunk(2))
                terms = [F.mse_loss(*half) for half in halves]
            else:
                terms = [F.mse_loss(prediction.float(), noise)]
            if self.name == "attndreambooth-lora":
                terms.append(self.processor.loss(self.position, *STAGES[3][1:]))
            terms += further
        sum(terms).backward()
        if self.clipped:
            torch.nn.utils.clip_grad_norm_(self.clipped, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return torch.tensor(sum(term.item() for term in terms))


def heads(xs, attn):
    return xs.unflatten(2, (attn.heads, -1)).transpose(1, 2)


class PerLayer:
    """Cross-attentions that take, one after the other, their own keys and values; AttnProcessor2_0 else."""

    def __init__(self):
        self.contexts = []

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, **_):
        keys_from = values_from = hidden_states
        if encoder_hidden_states is not None:
            keys_from, values_from = self.contexts.pop(0)
        query, key, value = attn.to_q(hidden_states), attn.to_k(keys_from), attn.to_v(values_from)
        out = F.scaled_dot_product_attention(heads(query, attn), heads(key, attn), heads(value, attn))
        return attn.to_out[1](attn.to_out[0](out.transpose(1, 2).flatten(2)))


class Neti(OtherMethod):
    """NeTI's mapper, whose embeddings each layer's text is encoded with; without nested dropout, whose draws are ours."""

    def added(self):
        linear, norm = torch.nn.Linear, torch.nn.LayerNorm
        width = self.table.weight.shape[1]
        self.mapper = torch.nn.ModuleDict({
            "input_layer": linear(2048, 160),
            "net": torch.nn.Sequential(
                torch.nn.Identity(), linear(160, 128), norm(128), torch.nn.LeakyReLU(), linear(128, 128), norm(128),
                torch.nn.LeakyReLU(),
            ),
            "output_layer": torch.nn.Sequential(linear(128, 2 * width)),
        }).to(self.args.device)  # fmt: skip
        self.frequencies = (normal(99, 1024, 2) * torch.tensor([0.03, 2.0])).to(self.args.device)
        self.norm = self.table.weight[self.placeholder].norm()
        self.contexts = PerLayer()
        self.unet.set_attn_processor(self.contexts)
        return begin(self.mapper.named_parameters())

    def embedded(self, timesteps, layer):
        angles = torch.stack([timesteps, torch.full_like(timesteps, layer)], 1).float() @ self.frequencies.T
        waves = F.normalize(torch.cat([angles.sin(), angles.cos()], 1))
        out = self.mapper["output_layer"](self.mapper["net"](self.mapper["input_layer"](waves)))
        return (F.normalize(out) * self.norm).chunk(2, dim=1)

    def pair(self, timesteps, layer):
        """What a layer takes keys from, and what it takes values from."""
        embedding, bypass = self.embedded(timesteps, layer)
        place, before = (self.ids == self.placeholder).unsqueeze(-1), []
        norm = getattr(self.text_encoder, "text_model", self.text_encoder).final_layer_norm
        replace = self.table.register_forward_hook(lambda *call: torch.where(place, embedding.unsqueeze(1), call[-1]))
        watch = norm.register_forward_pre_hook(lambda _, arguments: before.append(arguments[0]))
        plain = self.text_encoder(self.ids).last_hidden_state
        replace.remove(), watch.remove()
        (states,) = before
        added = 0.2 * F.normalize(bypass).unsqueeze(1) * states.norm(dim=-1, keepdim=True)
        return plain, norm(torch.where(place, states + added, states))

    def text(self, batch):
        return None

    def predict(self, noisy, timesteps, text):
        self.contexts.contexts = [self.pair(timesteps, layer) for layer in range(16)]
        return self.unet(noisy, timesteps, self.contexts.contexts[0][0]).sample, []


PLACES = [f"up_blocks.{place}" for place in ("1.attentions.1", "2.attentions.0", "2.attentions.2", "3.attentions.1")]
THRESHOLDS = [tenth / 10 for tenth in range(1, 10)]


class Watch:
    """Probabilities of the token and the end of text in each sample of the reference's pass; AttnProcessor2_0 else."""

    def __init__(self):
        from diffusers.models.attention_processor import AttnProcessor2_0

        self.plain, self.positions, self.maps = AttnProcessor2_0(), None, None

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, **further):
        if self.positions is None:
            return self.plain(attn, hidden_states, encoder_hidden_states, attention_mask, **further)
        query, key = heads(attn.to_q(hidden_states), attn), heads(attn.to_k(encoder_hidden_states), attn)
        value = heads(attn.to_v(encoder_hidden_states), attn)
        probabilities = ((query * attn.scale) @ key.transpose(-1, -2)).softmax(-1)
        own = self.positions[:, None, None].expand(-1, *probabilities.shape[1:3], -1)
        self.maps = probabilities.gather(3, own).float().mean(1).transpose(1, 2)
        return attn.to_out[1](attn.to_out[0]((probabilities @ value).transpose(1, 2).flatten(2)))


def subject(maps):
    """Otsu's method over .1 to .9."""
    least, most = maps.amin(1, keepdim=True), maps.amax(1, keepdim=True)
    normalised = ((maps - least) / (most - least)).unsqueeze(1)
    candidates = torch.tensor(THRESHOLDS, device=maps.device)
    above = normalised >= candidates[:, None]
    high, pixels, values = above.sum(2).double(), maps.shape[1], normalised.double()
    sum_high = (values * above).sum(2)
    gap = sum_high / high - (values.sum(2) - sum_high) / (pixels - high)
    between = torch.where((high > 0) & (high < pixels), high * (pixels - high) * gap.square(), 0.0)
    threshold = candidates[between.argmax(1)].unsqueeze(1)
    return normalised[:, 0] >= threshold


class Vico(OtherMethod):
    """ViCo's blocks behind four layers of the decoder, which look at the same images in another order."""

    def added(self):
        from diffusers.models.attention import BasicTransformerBlock

        self.blocks, self.watches, named, device = {}, {}, [], self.args.device
        for place in PLACES:
            transformer = self.unet.get_submodule(f"{place}.transformer_blocks.0")
            width, count = transformer.attn1.to_q.in_features, transformer.attn1.heads
            block = BasicTransformerBlock(width, count, width // count, cross_attention_dim=width).to(device)
            named += [(f"{place}.image_cross_attention.{name}", p) for name, p in block.named_parameters()]
            self.blocks[place], self.watches[place] = block, Watch()
            transformer.attn2.set_processor(self.watches[place])
        first_end = (self.ids == self.tokenizer.eos_token_id).int().argmax(1)
        self.positions = torch.stack([(self.ids == self.placeholder).int().argmax(1), first_end], 1)
        self.reference_noise = None
        return begin(named)

    def hooked(self, hook, *inputs):
        hooks = [
            self.unet.get_submodule(f"{place}.transformer_blocks.0").register_forward_hook(hook(place)) for place in PLACES
        ]
        sample = self.unet(*inputs).sample
        [hook.remove() for hook in hooks]
        return sample

    def references(self):
        pixels, _, noise, _ = (xs.to(self.args.device) for xs in self.batches())
        if self.reference_noise is None:
            self.reference_noise = normal(7, *noise.shape).to(self.args.device)
        with torch.no_grad():
            posterior = self.vae.encode(pixels.flip(0)).latent_dist
            sampled = posterior.mean + posterior.std * self.reference_noise
        return sampled.float() * self.vae.config.scaling_factor

    def predict(self, noisy, timesteps, text):
        features, further = {}, 0.0
        for watch in self.watches.values():
            watch.positions = self.positions
        self.hooked(lambda place: lambda *call: features.update({place: call[-1]}), self.references(), timesteps, text)
        kept = {}
        for place, watch in self.watches.items():
            watch.positions = None
            token, end = watch.maps[:, 0], watch.maps[:, 1].detach()
            token_scaled, end_scaled = (xs / xs.amax(1, keepdim=True) for xs in (token, end))
            further = further + 5e-4 * F.mse_loss(token_scaled, end_scaled)
            bias = torch.zeros_like(token).masked_fill(~subject(token.detach()), -torch.inf)
            kept[place] = bias.to(features[place].dtype).unsqueeze(1)
            watch.maps = None

        def attend(place):
            block = self.blocks[place]
            return lambda *call: block(
                call[-1], encoder_hidden_states=features[place], encoder_attention_mask=kept[place]
            )

        return self.hooked(attend, noisy, timesteps, text), [further]


class SdxlLora:
    """A step of LoRA on SDXL: both text encoders read the prompt once."""

    def __init__(self, args):
        from diffusers import DDPMScheduler
        from peft import LoraConfig, inject_adapter_in_model
        from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

        self.args = args
        self.autocast = torch.autocast(args.device, args.dtype, enabled=args.dtype != torch.float32)
        self.vae = load(args, "vae", torch.float32).requires_grad_(False)
        self.schedule = DDPMScheduler.from_pretrained(f"{args.model}/scheduler")
        category, states = args.category or CATEGORY, []
        for number, kind in [("", CLIPTextModel), ("_2", CLIPTextModelWithProjection)]:
            tokenizer = CLIPTokenizer.from_pretrained(f"{args.model}/tokenizer{number}")
            encoder = kind.from_pretrained(f"{args.model}/text_encoder{number}", dtype=torch.float32).to(args.device)
            tokenizer.add_tokens(PLACEHOLDER)
            encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
            length = encoder.config.max_position_embeddings
            options = dict(padding="max_length", max_length=length, return_tensors="pt")
            ids = tokenizer([f"a photo of {PLACEHOLDER} {category}"], **options).input_ids.to(args.device)
            table = encoder.get_input_embeddings()
            position = torch.where(ids[0] == len(tokenizer) - 1)[0].item()
            with torch.no_grad():
                table.weight[-1] = table.weight[ids[0, position + 1]]
                output = encoder(ids, output_hidden_states=True)
            states.append(output.hidden_states[-2])
        self.states, self.pooled = torch.cat(states, -1), output.text_embeds
        self.unet = load(args, "unet", args.dtype).requires_grad_(False)
        self.unet = inject_adapter_in_model(LoraConfig(r=8, lora_alpha=8, target_modules=ATTENTION), self.unet)
        if args.gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
            self.unet.train()
        self.trained = [parameter for parameter in self.unet.parameters() if parameter.requires_grad]
        for parameter in self.trained:
            parameter.data = parameter.data.float()
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-6, fused=True)
        shape = latents(args, self.unet.config.in_channels).shape
        same = (images(args), normal(6, *shape), normal(5, *shape), spread_timesteps(args.batch_size))
        self.batch = [xs.to(args.device) for xs in same]

    def step(self):
        pixels, posterior_noise, noise, timesteps = self.batch
        count, pixel_side = len(pixels), side(self.args)
        sizes = torch.tensor([[pixel_side, pixel_side, 0, 0, pixel_side, pixel_side]] * count, device=self.args.device)
        with self.autocast:
            with torch.no_grad():
                posterior = self.vae.encode(pixels).latent_dist
            clean = (posterior.mean + posterior.std * posterior_noise).float() * self.vae.config.scaling_factor
            noisy = self.schedule.add_noise(clean, noise, timesteps).to(self.args.dtype)
            added = {"text_embeds": self.pooled.expand(count, -1).to(self.args.dtype), "time_ids": sizes}
            text = self.states.expand(count, -1, -1).to(self.args.dtype)
            loss = F.mse_loss(self.unet(noisy, timesteps, text, added_cond_kwargs=added).sample.float(), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return torch.tensor(loss.item())


def training(args):
    return Training(args, STEPS[args.work]).step


def other_method(args):
    if (Path(args.model) / "text_encoder_2").exists():
        assert args.work == "lora-step", "of SDXL only lora-step is written here"
        return SdxlLora(args).step
    kind = {"neti-step": Neti, "vico-step": Vico}.get(args.work, OtherMethod)
    return kind(args).step


def unet_forward(args):
    unet = load(args, "unet")
    config = unet.config
    xs = latents(args, config.in_channels).to(args.device, args.dtype)
    text = normal(2, args.batch_size, 77, config.cross_attention_dim).to(args.device, args.dtype)
    timesteps = spread_timesteps(args.batch_size).to(args.device)
    added = {}
    if config.addition_embed_type:
        width = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        pooled = normal(8, args.batch_size, width).to(args.device, args.dtype)
        sizes = torch.tensor([[side(args), side(args), 0, 0, side(args), side(args)]] * args.batch_size, device=args.device)
        added = {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": sizes}}
    if args.compile:
        unet.compile()
    return lambda: size(unet(xs, timesteps, text, **added).sample)


def text_encoder(args):
    encoder = load(args, "text_encoder")
    config = encoder.config
    shape = (args.batch_size, config.max_position_embeddings)
    ids = torch.randint(0, config.vocab_size, shape, generator=torch.Generator().manual_seed(4)).to(args.device)
    return lambda: size(encoder(ids).last_hidden_state)


def vae_encode(args):
    vae, pixels = load(args, "vae"), images(args).to(args.device, args.dtype)
    return lambda: size(vae.encode(pixels).latent_dist.parameters)


def vae_decode(args):
    vae, xs = load(args, "vae"), latents(args).to(args.device, args.dtype)
    return lambda: size(vae.decode(xs).sample)


def adamw(args):
    unet = load(args, "unet", torch.float32)
    parameters = dict(unet.named_parameters())
    for parameter in parameters.values():
        parameter.grad = parameter.detach() * 2
    first = parameters[sorted(parameters)[0]]
    optimizer = torch.optim.AdamW(parameters.values(), lr=1e-3, fused=args.loop == "lean" or None)

    def run():
        optimizer.step()
        return size(first)

    return run


def sampling(args):
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
    from transformers import CLIPTokenizer

    scheduler = DPMSolverMultistepScheduler.from_pretrained(f"{args.model}/scheduler")
    pipeline = StableDiffusionPipeline(
        load(args, "vae"), load(args, "text_encoder"), CLIPTokenizer.from_pretrained(f"{args.model}/tokenizer"),
        load(args, "unet"), scheduler, None, None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    if args.compile:
        pipeline.unet.compile()
    prompts = ["a photo of a bird"] * args.batch_size

    def run():
        generators = [torch.Generator().manual_seed(i) for i in range(args.batch_size)]
        drawn = pipeline(
            prompts, height=side(args), width=side(args), num_inference_steps=args.steps, guidance_scale=7.5,
            generator=generators, output_type="latent",
        )  # fmt: skip
        return size(drawn.images)

    return run


def loading(args):
    return lambda: torch.tensor(float(sum(p.numel() for p in load(args, "unet").parameters())))


def memory_copy(args):
    """What loading is measured against: a plain copy of a file in the page cache into new memory."""
    path = f"{args.model}/unet/diffusion_pytorch_model.safetensors"
    whole = torch.from_file(path, size=Path(path).stat().st_size, dtype=torch.uint8)
    return lambda: torch.tensor(float(whole.clone().numel()))


class Files(torch.utils.data.Dataset):
    """torchvision decodes and resizes; in worker processes, as its users have it."""

    def __init__(self, folder):
        self.paths = sorted(map(str, Path(folder).iterdir()))

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        from torchvision.io import ImageReadMode, decode_image
        from torchvision.transforms.v2 import functional as T

        pixels = decode_image(self.paths[index], ImageReadMode.RGB)
        pixels = T.resize(pixels, [224], interpolation=T.InterpolationMode.BICUBIC, antialias=True)
        return T.normalize(T.center_crop(pixels, [224, 224]).float() / 255, *CLIP_NORM)


CLIP_NORM = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def features(args):
    from transformers import CLIPModel

    model = CLIPModel.from_pretrained(args.model).eval().to(args.device)
    files = Files(args.images)

    def run():
        # Without workers the one process has all threads; with them both cores are shared in another way: the best counts.
        total = 0.0
        loader = torch.utils.data.DataLoader(files, args.batch_size, num_workers=args.workers)
        for batch in loader:
            found = model.get_image_features(batch.to(args.device))
            found = getattr(found, "pooler_output", found)
            total += F.normalize(found, dim=-1).abs().sum().item()
        return torch.tensor(total / len(files))

    return run


class Photos:
    """The authors' views: a random turn, a random crop of a picture enlarged a little, a random flip."""

    def __init__(self, args):
        import numpy
        from PIL import Image, ImageOps
        from torchvision import transforms

        self.numpy, self.args = numpy, args
        preset = Path(args.model) / "attndreambooth.json"
        own = json.loads(preset.read_text()) if preset.exists() else {}
        turn = own.get("augmentation", {}).get("rotation_p", 0.75)
        paths = sorted(p for p in Path(args.images).iterdir() if p.suffix.lower() in {".jpg", ".jpeg", ".png"})
        self.files = [ImageOps.exif_transpose(Image.open(path)).convert("RGB") for path in paths]
        wanted = side(args)
        self.transform = transforms.Compose([
            transforms.RandomApply([transforms.RandomRotation(45, transforms.InterpolationMode.BILINEAR, expand=True)], turn),
            transforms.Resize(wanted, transforms.InterpolationMode.BILINEAR),
            transforms.RandomCrop(wanted),
            transforms.RandomHorizontalFlip(0.25),
            transforms.ToTensor(),
            transforms.Normalize([0.5], [0.5]),
        ])  # fmt: skip
        self.count = 0

    def __call__(self):
        views = []
        for _ in range(8):
            views.append(self.transform(self.files[self.count % len(self.files)]))
            self.count += 1
        pixels = torch.stack(views)
        shape = (8, 4, side(self.args) // 8, side(self.args) // 8)
        return pixels, torch.randn(shape), torch.randn(shape), torch.randint(0, 1000, (8,))


def training_run(args):
    """A whole run: three stages, a checkpoint of weights and optimiser at the end of the first two, and the U-Net."""
    path = Path(args.model) / "attndreambooth.json"
    own = json.loads(path.read_text()) if path.exists() else {}
    changes = {path: int(value) for path, value in (change.split("=") for change in args.set)}
    stages = [("embedding", 60, 1e-3), ("cross_attention", 100, 2e-5), ("unet", 500, 2e-6)]

    def run():
        import tempfile

        loop = Training(args, 1, Photos(args))
        for stage, (name, steps, learning_rate) in enumerate(stages, 1):
            mine = own.get(name, {})
            loop.start(stage, mine.get("learning_rate", learning_rate))
            for _ in range(changes.get(f"{name}.steps", mine.get("steps", steps))):
                loss = loop.step()
                run.first_step = run.first_step or since_start()
            with tempfile.TemporaryDirectory() as folder:
                saved = {"unet": loop.unet.state_dict()}
                if stage < 3:
                    saved["optimizer"] = loop.optimizer.state_dict()
                torch.save(saved, f"{folder}/state.pt")
        return loss

    run.first_step = None
    return run


def since_start():
    """Seconds since the process was started."""
    ticks = float(Path("/proc/self/stat").read_text().rsplit(")")[-1].split()[19])
    return float(Path("/proc/uptime").read_text().split()[0]) - ticks / 100


WORK = {
    "unet-forward": unet_forward,
    "embedding-step": training,
    "cross-attention-step": training,
    "unet-step": training,
    "attndreambooth-lora-step": other_method,
    "textual-inversion-step": other_method,
    "dreambooth-step": other_method,
    "ti-db-step": other_method,
    "custom-diffusion-step": other_method,
    "oft-step": other_method,
    "coft-step": other_method,
    "lora-step": other_method,
    "neti-step": other_method,
    "vico-step": other_method,
    "text-encoder": text_encoder,
    "vae-encode": vae_encode,
    "vae-decode": vae_decode,
    "adamw": adamw,
    "sampling": sampling,
    "loading": loading,
    "memory-copy": memory_copy,
    "features": features,
    "training": training_run,
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=WORK)
    parser.add_argument("--model", default="fixtures/miniature")
    parser.add_argument("--images", default="fixtures/subjects/penguin")
    parser.add_argument("--category")
    parser.add_argument("--set", action="append", default=[], metavar="STAGE.steps=N")
    parser.add_argument("--loop", choices=["lean", "authors"], default="lean")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--resolution", type=int)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--warm-up", type=int, default=1)
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--dtype", choices=["fp32", "tf32", "bf16", "fp16"], default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    args = parser.parse_args()
    tf32 = args.dtype == "tf32"
    args.dtype = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[args.dtype]
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.backends.cuda.matmul.allow_tf32 = tf32
    # The authors leave convolutions as PyTorch has them: in TF32.
    torch.backends.cudnn.allow_tf32 = tf32 or args.loop == "authors"
    cuda = args.device.startswith("cuda")
    synchronize = torch.cuda.synchronize if cuda else lambda: None

    run = WORK[args.work](args)
    trains = args.work.endswith("-step") or args.work == "training"
    seconds, check, first_run = [], math.nan, None
    with torch.set_grad_enabled(trains):
        for i in range(args.warm_up + args.iterations):
            synchronize()
            start = time.perf_counter()
            value = run()
            synchronize()
            if i >= args.warm_up:
                seconds.append(time.perf_counter() - start)
            elif i == 0:
                first_run = time.perf_counter() - start
            if i == 0:
                check = value.item()
    peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    first = getattr(run, "first_step", None)
    numbers = {"seconds": seconds, "check": check, "peak_memory_bytes": peak, "first_step_seconds": first}
    if args.compile:
        numbers["compile_seconds"] = first_run
    print(json.dumps(numbers))


if __name__ == "__main__":
    sys.exit(main())
