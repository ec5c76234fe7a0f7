"""Clients that people use, besides those of tests/test_serve.py: the Node libraries of OpenAI and Anthropic, LangChain and LiteLLM."""
import os
import subprocess

import pydantic
import pytest

from conftest import ROOT
from test_serve import KEY, server  # noqa: F401

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else LiteLLM fetches a list of prices when it is imported
os.environ.setdefault("LANGSMITH_TRACING", "false")


@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_node_clients(server, name):
    done = subprocess.run(["node", ROOT / f"tests/clients/{name}.mjs", server.url, KEY], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "# fail 0" in done.stdout or "ℹ fail 0" in done.stdout, done.stdout


class City(pydantic.BaseModel):
    """A city and the country that it is in."""
    name: str = pydantic.Field(max_length=20)
    country: str = pydantic.Field(max_length=20)


QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def answer(server):
    return server.client().chat.completions.create(model="smol", messages=[{"role": "user", "content": QUESTION}], temperature=0, max_tokens=24).choices[0].message.content


def test_ollamas_endpoints_take_bodies_without_a_type_but_not_from_web_pages(server):
    body = b'{"model": "smol", "prompt": "Hi", "stream": false, "options": {"num_predict": 1}}'
    for kind in ("", "application/x-www-form-urlencoded", "text/plain"):
        ask = lambda path, **more: server.request(path, body, **{"Content-Type": kind, **more})
        status, _, answer = ask("/api/generate")
        assert status == 200 and answer["done"], answer
        assert ask("/api/generate", Origin="http://evil.example")[0] == ask("/v1/completions")[0] == ask("/api/../v1/completions")[0] == 415


def test_langchain(server, answer):
    import langchain_openai
    import openai

    chat = langchain_openai.ChatOpenAI(model="smol", base_url=server.url + "/v1", api_key=KEY, temperature=0, max_tokens=24, max_retries=0)
    whole = chat.invoke(QUESTION)
    assert whole.content == answer and whole.usage_metadata["output_tokens"] > 0
    assert whole.response_metadata["finish_reason"] in ("stop", "length")
    conversation = [("system", "Be brief."), ("human", QUESTION), ("ai", "Paris."), ("human", "And of Italy?")]
    assert "".join(part.content for part in chat.stream(conversation)) == chat.invoke(conversation).content != answer
    assert [one.content for one in chat.batch([QUESTION] * 4)] == [answer] * 4
    longer = langchain_openai.ChatOpenAI(model="smol", base_url=server.url + "/v1", api_key=KEY, temperature=1, max_tokens=80, max_retries=0)
    assert isinstance(longer.with_structured_output(City, method="json_schema").invoke(QUESTION), City)
    with pytest.raises(openai.BadRequestError):
        chat.bind(temperature=3).invoke(QUESTION)


@pytest.mark.parametrize("route", ["openai", "anthropic", "ollama_chat", "ollama"])
def test_litellm(server, answer, route):
    import litellm

    ask = dict(model=f"{route}/smol", api_base=server.url + "/v1" * (route == "openai"), api_key=KEY, messages=[{"role": "user", "content": QUESTION}],
               temperature=0, max_tokens=24, num_retries=0)
    whole = litellm.completion(**ask)
    text = whole.choices[0].message.content
    # The route of /api/generate writes its own "### User:" around the question.
    assert (text == answer or route == "ollama") and text and whole.choices[0].finish_reason in ("stop", "length")
    assert whole.usage.completion_tokens > 0 and whole.usage.prompt_tokens > 0
    assert "".join(part.choices[0].delta.content or "" for part in litellm.completion(**ask, stream=True)) == text
    with pytest.raises((litellm.NotFoundError, litellm.APIConnectionError)):
        litellm.completion(**ask | {"model": f"{route}/other"})


def test_litellm_types_errors_and_structured_output(server):
    import litellm

    ask = dict(model="openai/smol", api_base=server.url + "/v1", api_key=KEY, messages=[{"role": "user", "content": QUESTION}], max_tokens=64, num_retries=0)
    with pytest.raises(litellm.BadRequestError):
        litellm.completion(**ask, temperature=3)
    with pytest.raises(litellm.AuthenticationError):
        litellm.completion(**ask | {"api_key": "wrong"})
    City.model_validate_json(litellm.completion(**ask, response_format=City, temperature=0).choices[0].message.content)
