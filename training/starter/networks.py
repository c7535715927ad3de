"""The networks of the starter model and its noise schedule, untrained."""

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from training.starter.render import SIDE
from training.starter.vocabulary import END, MAX_TOKENS, START

TEXT_WIDTH = 192
"""Channels of the text encoder and of the denoiser's cross attention."""
TIME_WIDTH = 384
"""Channels of the embedding of timestep and prompt."""
AUTOENCODER_CHANNELS = (32, 64, 64)
DENOISER_CHANNELS = (64, 128, 160)
HEADS = 4
"""Attention heads a layer (the config calls it attention_head_dim)."""


def new_autoencoder() -> AutoencoderKL:
    """Build the autoencoder: 64 px to 16 x 16 x 4, 0.9 M parameters.

    Four channels because the inpainting pipelines take no other number.
    """
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        # the library declares tuples of one
        down_block_types=("DownEncoderBlock2D",) * 3,  # pyright: ignore[reportArgumentType]
        up_block_types=("UpDecoderBlock2D",) * 3,  # pyright: ignore[reportArgumentType]
        block_out_channels=AUTOENCODER_CHANNELS,  # pyright: ignore[reportArgumentType]
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=16,
        sample_size=SIDE,
        mid_block_add_attention=False,
    )


def new_denoiser() -> UNet2DConditionModel:
    """Build the denoiser: plain convolutions at 16 x 16, cross attention at 8 x 8 and 4 x 4."""
    return UNet2DConditionModel(
        sample_size=SIDE // 4,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=DENOISER_CHANNELS,
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=HEADS,
        norm_num_groups=16,
        # The prompt also scales and shifts every residual block, as the timestep does: subjects
        # are told apart within 500 steps, where cross attention alone had not after 3,000.
        addition_embed_type="text",
        addition_embed_type_num_heads=HEADS,
        time_embedding_dim=TIME_WIDTH,
        resnet_time_scale_shift="scale_shift",
    )


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Build the text encoder: two layers, 0.6 M parameters and the word table."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=2 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=tokenizer.get_vocab()[START],
            eos_token_id=tokenizer.get_vocab()[END],
            pad_token_id=tokenizer.get_vocab()[END],
        )
    )


def new_scheduler() -> DDIMScheduler:
    """Build the noise schedule: v-prediction that ends in pure noise, so few steps suffice.

    Source:
        Lin et al. 2023, arXiv:2305.08891: zero terminal SNR, trailing steps.
    """
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )
