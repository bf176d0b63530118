"""Language models over HTTP say what the commands and the Python API say."""

import math

import numpy as np
import pytest
import torch

from reformer import ReformerForCausalLM, ReformerForMaskedLM
from reformer.data.tokenizers import ByteTokenizer, Enwik8Tokenizer, NucleotideTokenizer
from reformer.generation.continuation import Sampling, continue_text
from reformer.genomics.embedding import Embedder, stretches
from reformer.genomics.genome import Genome
from reformer.genomics.sampling import generate_sequences
from reformer.serving.loading import load_service
from reformer.training.corpus import open_corpus
from reformer.training.evaluation import evaluate_bits
from reformer.training.model_folder import load_language_model
from tests.models.small_models import build

TEXT = "And the earth was without form, and void; é."


def save(folder, cls, tokenizer, **changes):
    build(cls, vocab_size=len(tokenizer), **changes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def dna(tmp_path_factory):
    return save(tmp_path_factory.mktemp("dna"), ReformerForCausalLM, NucleotideTokenizer())


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return save(tmp_path_factory.mktemp("text"), ReformerForCausalLM, ByteTokenizer())


@pytest.fixture(scope="module")
def letters():
    generator = np.random.default_rng(0)
    return ["".join(generator.choice(list("ACGTN"), length)) for length in (90, 2, 90, 41)]


def bits_of_file(model, path, content):
    path.write_text(content, encoding="utf-8")
    return evaluate_bits(model, open_corpus([path])).total


@pytest.mark.parametrize("cls", [ReformerForCausalLM, ReformerForMaskedLM])
def test_scores_are_those_of_evaluate(serve, tmp_path, letters, cls):
    folder = save(tmp_path / "model", cls, NucleotideTokenizer())
    sequences = [one for one in letters if cls is ReformerForCausalLM or len(one) > 2]
    answer = serve(load_service(folder, "cpu", 1000)).post("/score", sequences=sequences)
    model, _ = load_language_model(folder, "cpu")
    assert len(answer["results"]) == len(sequences)
    for number, (sequence, found) in enumerate(zip(sequences, answer["results"], strict=True)):
        expected = bits_of_file(model, tmp_path / f"{number}.fa", f">x\n{sequence}\n")
        assert found["num_tokens"] == expected.num_tokens
        assert found["num_bases"] == expected.num_bases
        assert found["bits_per_token"] == pytest.approx(expected.bits_per_token, rel=1e-5)
        if expected.bits_per_base is None:  # N alone was to be predicted
            assert found["bits_per_base"] is None
        else:
            assert found["bits_per_base"] == pytest.approx(expected.bits_per_base, rel=1e-5)
        assert found["nats_per_token"] == pytest.approx(found["bits_per_token"] * math.log(2))
        assert found["log_likelihood"] == pytest.approx(-found["nats_per_token"] * expected.num_tokens)
    # What a sequence gets does not hang on those beside it.
    alone = serve(load_service(folder, "cpu", 1000)).post("/score", sequences=sequences[-1:])
    assert alone["results"][0]["log_likelihood"] == pytest.approx(found["log_likelihood"], rel=1e-5)


def test_scores_of_text(serve, text, tmp_path):
    (found,) = serve(load_service(text, "cpu", 1000)).post("/score", sequences=[TEXT])["results"]
    expected = bits_of_file(load_language_model(text, "cpu")[0], tmp_path / "x.txt", TEXT)
    assert (found["num_tokens"], found["num_bases"], found["bits_per_base"]) == (len(TEXT), 0, None)
    assert found["bits_per_token"] == pytest.approx(expected.bits_per_token, rel=1e-5)


def test_scores_by_a_tokenizer_that_token_arrays_do_not_have(serve, tmp_path):
    folder = save(tmp_path / "model", ReformerForCausalLM, Enwik8Tokenizer())
    client = serve(load_service(folder, "cpu", 1000))
    (found,) = client.post("/score", sequences=[TEXT])["results"]
    model, tokenizer = load_language_model(folder, "cpu")
    nats = model.token_losses(torch.tensor([tokenizer(TEXT)["input_ids"]])).double().sum()
    assert found["log_likelihood"] == pytest.approx(-float(nats), rel=1e-5)
    assert client.get("/")["tokenizer"] == "enwik8"


@pytest.mark.parametrize("prompt", ["ACGTTGG", ""])
def test_dna_is_generated_as_by_dna_generate(serve, dna, prompt):
    client = serve(load_service(dna, "cpu", 1000))
    options = {"max_new_tokens": 40, "temperature": 0.8, "top_p": 0.9, "seed": 3}
    answer = client.post("/generate", prompt=prompt, **options)
    model, tokenizer = load_language_model(dna, "cpu")
    (expected,) = generate_sequences(model, tokenizer, [("x", prompt)], Sampling(**options), 1)
    assert prompt + answer["continuation"] == expected.letters
    assert client.post("/generate", prompt=prompt, **options) == answer
    assert client.post("/generate", prompt=prompt, **options | {"seed": 4}) != answer


def test_text_is_generated_as_by_generate(serve, text):
    client = serve(load_service(text, "cpu", 1000))
    answer = client.post("/generate", prompt="And é", max_new_tokens=20, top_k=50, seed=1)
    model, tokenizer = load_language_model(text, "cpu")
    sampling = Sampling(20, top_k=50, seed=1)
    assert answer == {"continuation": continue_text(model, tokenizer, "And é", sampling)}
    assert client.refused("/generate", prompt="") == "prompt: empty: expected at least one token"


@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("both_strands", [False, True])
def test_vectors_are_those_of_dna_embed(serve, dna, letters, tmp_path, pooling, both_strands):
    client = serve(load_service(dna, "cpu", 1000))
    answer = client.post("/embed", sequences=letters, pooling=pooling, both_strands=both_strands)
    model, _ = load_language_model(dna, "cpu")
    (tmp_path / "g.fa").write_text("".join(f">s{n}\n{one}\n" for n, one in enumerate(letters)))
    with Genome(tmp_path / "g.fa") as genome:
        embedder = Embedder(model, genome, "fold", pooling, both_strands)
        expected = np.concatenate([rows["embedding"] for rows in embedder.rows(stretches(genome))])
    found = np.array([one["embedding"] for one in answer["results"]])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(found, axis=0).max() > 0.1


def test_vectors_of_text(serve, text):
    client = serve(load_service(text, "cpu", 1000))
    (found,) = client.post("/embed", sequences=[TEXT])["results"]
    model, tokenizer = load_language_model(text, "cpu")
    with torch.no_grad():
        hidden = model.reformer(torch.tensor([tokenizer(TEXT)["input_ids"]])).last_hidden_state
    np.testing.assert_allclose(found["embedding"], hidden[0].mean(0), atol=1e-5)
    expected = "unknown key both_strands; expected one of sequences, pooling"
    assert client.refused("/embed", sequences=["a"], both_strands=True) == expected


def test_what_there_is(serve, dna, tmp_path):
    client = serve(load_service(dna, "cpu", 50))
    assert client.get("/health") == {"status": "ok"}
    about = client.get("/")
    assert about["kind"] == "causal language model"
    assert (about["tokenizer"], about["max_length"], about["device"]) == ("nucleotide", 50, "cpu")
    assert list(about["tasks"]) == ["score", "generate", "embed"]
    assert about["tasks"]["score"]["request"]["required"] == ["sequences"]
    masked = save(tmp_path / "masked", ReformerForMaskedLM, NucleotideTokenizer())
    service = load_service(masked, "cpu", 50)
    assert list(service.tasks) == ["score", "embed"]
    status, content = serve(service).ask("POST", "/generate", b"{}")
    there = "/generate: there is GET /, GET /health, POST /score, POST /embed"
    assert (status, content) == (404, {"error": there})


def test_a_model_of_few_positions(serve, tmp_path):
    options = {"position_embedding_type": "learned", "max_position_embeddings": 30}
    folder = save(tmp_path / "model", ReformerForCausalLM, NucleotideTokenizer(), **options)
    client = serve(load_service(folder, "cpu", 1000))
    assert client.get("/")["max_length"] == 30
    assert client.refused("/score", sequences=["A" * 31]) == "sequences.0: 31 tokens: expected 30 at most"


@pytest.mark.parametrize(
    ("path", "request_", "message"),
    [
        (
            "/score",
            {"sequences": ["ACGT", "ACQT"]},
            "sequences.1: position 2: 'Q' is not a nucleotide letter",
        ),
        ("/score", {"sequences": ["AC GT"]}, "sequences.0: position 2: ' ' is not a nucleotide letter"),
        ("/score", {"sequences": ["ACéT"]}, "sequences.0: position 2: 'é' is not a nucleotide letter"),
        ("/score", {"sequences": ["AC[MASK]"]}, "sequences.0: position 2: '[' is not a nucleotide letter"),
        ("/score", {"sequences": []}, "sequences: expected at least 1 item(s), got []"),
        ("/score", {"sequences": [""]}, "sequences.0: expected text that is not empty, got ''"),
        ("/score", {"sequences": ["AC", 3]}, "sequences.1: expected text, got 3"),
        ("/score", {"sequences": "ACGT"}, "sequences: expected a list, got 'ACGT'"),
        ("/score", {}, "missing key sequences"),
        ("/score", {"sequence": "AC"}, "unknown key sequence; did you mean sequences?"),
        ("/score", {"sequences": ["A"]}, "sequences.0: 1 tokens: too few to predict one"),
        ("/score", {"sequences": ["AC", "A" * 51]}, "sequences.1: 51 tokens: expected 50 at most"),
        ("/embed", {"sequences": ["A"], "pooling": "all"}, "pooling: expected 'mean' or 'last', got 'all'"),
        ("/generate", {"prompt": "ACQ"}, "prompt: position 2: 'Q' is not a nucleotide letter"),
        (
            "/generate",
            {"prompt": "AC", "max_new_tokens": 49},
            "prompt: 2 tokens and 49 new ones: expected 50 at most",
        ),
        ("/generate", {"max_new_tokens": 51}, "prompt: 0 tokens and 51 new ones: expected 50 at most"),
        ("/generate", {"max_new_tokens": 0}, "max_new_tokens: expected a number of at least 1, got 0"),
        ("/generate", {"temperature": 0}, "temperature is 0"),
        ("/generate", {"top_p": 1.5}, "top-p is 1.5: expected a number above 0 and up to 1"),
        ("/generate", {"seed": -1}, "seed is -1: expected 0 to 2**63 - 1"),
        ("/generate", {"seed": 1.5}, "seed: expected"),
    ],
)
def test_what_cannot_be(serve, dna, path, request_, message):
    assert serve(load_service(dna, "cpu", 50)).refused(path, **request_).startswith(message)
