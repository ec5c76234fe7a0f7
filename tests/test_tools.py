"""Calls of tools and reasoning as clients see them: each family's form by its template, streamed and whole, in every protocol."""
import json

import anthropic
import ollama
import openai
import pytest

from oracle.template_families import FAMILIES
from test_serve import KEY, Server, server  # noqa: F401

WEATHER = {"type": "function", "function": {"name": "get_weather", "description": "The weather of a city", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "maxLength": 20}, "days": {"enum": [1, 2, 3]}}, "required": ["city", "days"]}}}
CLOCK = {"type": "function", "function": {"name": "now"}}
QUESTION = [{"role": "user", "content": "What is the weather in Paris?"}]
ASK = dict(model="smol", messages=QUESTION, temperature=0, max_tokens=80)


def calls_of(message):
    return [(call.function.name, call.function.arguments) for call in message.tool_calls or []]


def streamed(client, **ask):
    """(content, reasoning, calls, finish reason) of a stream."""
    content, reasoning, calls, reason = "", "", [], None
    for event in client.chat.completions.create(**ask, stream=True):
        choice = event.choices[0]
        content += choice.delta.content or ""
        reasoning += getattr(choice.delta, "reasoning_content", None) or ""
        for call in choice.delta.tool_calls or []:
            if call.function.name:
                assert call.index == len(calls) and call.id and call.type == "function"
                calls.append([call.function.name, ""])
            calls[call.index][1] += call.function.arguments
        reason = choice.finish_reason or reason
    return content, reasoning, [tuple(call) for call in calls], reason


def check_weather(arguments):
    values = json.loads(arguments)
    assert set(values) == {"city", "days"} and isinstance(values["city"], str) and values["days"] in (1, 2, 3)


def test_a_call_that_is_required_comes_whole_and_in_a_stream(server):
    client = server.client()
    for choice in ("required", {"type": "function", "function": {"name": "get_weather"}}):
        ask = dict(ASK, tools=[WEATHER, CLOCK] if choice != "required" else [WEATHER], tool_choice=choice)
        whole = client.chat.completions.create(**ask).choices[0]
        assert whole.finish_reason == "tool_calls" and whole.message.content is None
        (call,) = calls_of(whole.message)
        assert call[0] == "get_weather"
        check_weather(call[1])
        assert streamed(client, **ask) == ("", "", [call], "tool_calls")


def test_a_model_may_answer_in_text_and_is_told_results(server):
    client = server.client()
    none = client.chat.completions.create(**ASK, tools=[WEATHER], tool_choice="none")
    plain = client.chat.completions.create(**ASK)
    assert none.choices[0].message.content == plain.choices[0].message.content
    told = client.chat.completions.create(**ASK, tools=[WEATHER])
    assert told.usage.prompt_tokens > plain.usage.prompt_tokens
    assert told.choices[0].message.content or told.choices[0].message.tool_calls
    history = QUESTION + [{"role": "assistant", "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": "{\"city\": \"Paris\", \"days\": 1}"}}]},
                          {"role": "tool", "tool_call_id": "c1", "content": "Snow, 3 degrees"}]
    prompt = server.request("/apply-template", {"messages": history, "tools": [WEATHER]})[2]["prompt"]
    assert '"get_weather"' in prompt and "get_weather returned: Snow, 3 degrees" in prompt
    assert client.chat.completions.create(**dict(ASK, messages=history), tools=[WEATHER]).choices[0].finish_reason in ("stop", "length", "tool_calls")


def test_what_is_wrong_with_tools_is_named(server):
    def refused(param, **more):
        status, _, body = server.request("/v1/chat/completions", {**ASK, **more})
        assert status == 400 and param in body["error"]["param"], body
        return body["error"]["message"]
    refused("tools", tools={})
    refused("tools[0]", tools=[{"type": "web_search"}])
    refused("tools[1]", tools=[WEATHER, {"type": "function", "function": {"name": "a b"}}])
    assert "twice" in refused("tools", tools=[WEATHER, WEATHER])
    refused("tool_choice", tools=[WEATHER], tool_choice="sometimes")
    refused("tool_choice", tools=[WEATHER], tool_choice={"type": "function", "function": {"name": "other"}})
    refused("tool_choice", tool_choice="required")
    refused("response_format", tools=[WEATHER], response_format={"type": "json_schema", "json_schema": {"schema": {"type": "strnig"}}})
    hard = {"type": "function", "function": {"name": "f", "strict": True, "parameters": {"type": "object", "properties": {"a": {"not": {"type": "object"}}}}}}
    assert "#/properties/a/not" in refused("tools", tools=[hard])
    refused("messages[0]", messages=[{"role": "user", "content": "x", "tool_calls": [{"function": {"name": "f"}}]}])
    refused("messages[1]", messages=QUESTION + [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{broken"}}]}])


def test_anthropic_tools(server):
    client = anthropic.Anthropic(base_url=server.url, api_key=KEY, max_retries=0)
    tool = {"name": "get_weather", "description": "The weather of a city", "input_schema": WEATHER["function"]["parameters"]}
    ask = dict(model="smol", max_tokens=80, extra_body={"temperature": 0}, messages=QUESTION, tools=[tool], tool_choice={"type": "any"})
    whole = client.messages.create(**ask)
    (block,) = whole.content
    assert whole.stop_reason == "tool_use" and block.type == "tool_use" and block.name == "get_weather"
    check_weather(json.dumps(block.input))
    with client.messages.stream(**ask) as stream:
        final = stream.get_final_message()
    assert final.content[0].input == block.input and final.stop_reason == "tool_use"
    follow = dict(ask, tool_choice={"type": "auto"}, max_tokens=8, messages=QUESTION + [
        {"role": "assistant", "content": [block.model_dump()]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": block.id, "content": [{"type": "text", "text": "Snow"}]}, {"type": "text", "text": "So?"}]}])
    assert client.messages.create(**follow).usage.output_tokens > 0
    assert client.messages.count_tokens(model="smol", messages=follow["messages"], tools=[tool]).input_tokens > 50
    with pytest.raises(anthropic.BadRequestError, match="web_search"):
        client.messages.create(**dict(ask, tools=[{"type": "web_search_20250305", "name": "web_search"}]))
    shaped = client.messages.create(model="smol", max_tokens=40, messages=QUESTION,
                                    extra_body={"output_config": {"format": {"type": "json_schema", "schema": {"enum": ["sun", "snow"]}}}})
    assert json.loads(shaped.content[0].text) in ("sun", "snow")


def test_ollama_tools(server):
    client = ollama.Client(host=server.url, headers={"Authorization": f"Bearer {KEY}"})
    assert "tools" in client.show("smol").capabilities
    # It may answer in text: what the server reads as a call is what the other protocols read.
    whole = server.request("/api/chat", {"model": "smol", "messages": QUESTION, "tools": [WEATHER], "stream": False, "options": {"num_predict": 60, "temperature": 0}})[2]
    same = server.client().chat.completions.create(**dict(ASK, max_tokens=60), tools=[WEATHER]).choices[0].message
    assert whole["message"]["content"] == (same.content or "") and len(whole["message"].get("tool_calls", [])) == len(same.tool_calls or [])
    # The client writes a tool in other words, which is another prompt: whole and streamed are told the same there.
    ask = dict(tools=[WEATHER], options={"num_predict": 60, "temperature": 0})
    whole, lines = client.chat("smol", QUESTION, **ask), list(client.chat("smol", QUESTION, **ask, stream=True))
    assert lines[-1].done and "".join(line.message.content or "" for line in lines) == whole.message.content
    assert [call.function for line in lines for call in line.message.tool_calls or []] == [call.function for call in whole.message.tool_calls or []]


def test_responses(server):
    client = server.client()
    whole = client.responses.create(model="smol", input="What is the capital of France?", temperature=0, max_output_tokens=16, instructions="Be brief.")
    same = client.chat.completions.create(model="smol", temperature=0, max_tokens=16,
                                          messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is the capital of France?"}])
    assert whole.output_text == same.choices[0].message.content
    assert whole.usage.input_tokens == same.usage.prompt_tokens and whole.usage.output_tokens == same.usage.completion_tokens
    with client.responses.stream(model="smol", input="What is the capital of France?", temperature=0, max_output_tokens=16, instructions="Be brief.") as stream:
        events = list(stream)
        assert stream.get_final_response().output_text == whole.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].type == "response.created" and events[-1].type == f"response.{whole.status}"
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole.output_text
    flat = {"type": "function", **WEATHER["function"], "strict": False}
    call = client.responses.create(model="smol", input=QUESTION, tools=[flat], tool_choice="required", temperature=0, max_output_tokens=80).output[0]
    assert call.type == "function_call" and call.name == "get_weather"
    check_weather(call.arguments)
    follow = client.responses.create(model="smol", max_output_tokens=8, tools=[flat], tool_choice="none",
                                     input=QUESTION + [call.model_dump(), {"type": "function_call_output", "call_id": call.call_id, "output": "Snow"}])
    assert follow.output[0].type == "message"
    shaped = client.responses.create(model="smol", input="Weather?", max_output_tokens=30,
                                     text={"format": {"type": "json_schema", "name": "w", "schema": {"enum": ["sun", "snow"]}}})
    assert json.loads(shaped.output_text) in ("sun", "snow")
    for field, value in (("previous_response_id", "resp_1"), ("background", True), ("tools", [{"type": "web_search"}]), ("input", 3), ("max_output_tokens", 0)):
        with pytest.raises(openai.BadRequestError) as error:
            client.responses.create(**{**dict(model="smol", input="x"), field: value})
        assert error.value.param == field


# Templates that write tools in their family's way, over the same model: it does not know the form, but the grammar does.
@pytest.mark.parametrize("family, form", [("qwen", "hermes"), ("llama3", "llama3_json"), ("mistral", "mistral"), ("chatml", "json")])
def test_each_family_calls_in_its_own_form(smollm2, tmp_path, family, form):
    (tmp_path / "template.jinja").write_text(FAMILIES[family])
    server = Server(smollm2, "--alias", "smol", "--chat-template-file", tmp_path / "template.jinja")
    client = server.client()
    assert server.request("/props")[2]["tool_call_format"] == form
    ask = dict(ASK, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False)
    raw = server.request("/apply-template", {"messages": QUESTION, "tools": [WEATHER]})[2]["prompt"]
    assert "get_weather" in raw
    whole = client.chat.completions.create(**ask).choices[0]
    (call,) = calls_of(whole.message)
    check_weather(call[1])
    assert streamed(client, **ask) == ("", "", [call], "tool_calls")
    # The next turn: the template takes what was called and what came of it.
    history = QUESTION + [whole.message.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": whole.message.tool_calls[0].id, "content": "Snow"}]
    assert "Snow" in server.request("/apply-template", {"messages": history, "tools": [WEATHER]})[2]["prompt"]
    assert server.stop() == 0


CITY = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12}, "big": {"type": "boolean"}}, "required": ["name", "big"], "additionalProperties": False}
FORMAT = {"type": "json_schema", "json_schema": {"name": "city", "strict": True, "schema": CITY}}


def check_city(text):
    values = json.loads(text)
    assert set(values) == {"name", "big"} and isinstance(values["big"], bool)


# Templates of two families, over the same model: with tools and a form of the answer it either calls or answers in that form.
@pytest.mark.parametrize("family", ["qwen", "chatml"])
def test_tools_and_a_form_of_the_answer_together(smollm2, tmp_path, family):
    (tmp_path / "template.jinja").write_text(FAMILIES[family])
    server = Server(smollm2, "--alias", "smol", "--chat-template-file", tmp_path / "template.jinja")
    client = server.client()
    ask = dict(ASK, tools=[WEATHER], response_format=FORMAT, parallel_tool_calls=False)
    for seed in range(6):
        seeded = dict(ask, temperature=1, seed=seed)
        choice = client.chat.completions.create(**seeded).choices[0]
        assert streamed(client, **seeded) == (choice.message.content or "", "", calls_of(choice.message), choice.finish_reason)
        if choice.message.tool_calls:
            ((name, arguments),) = calls_of(choice.message)
            assert name == "get_weather" and choice.message.content is None
            check_weather(arguments)
        else:
            check_city(choice.message.content)
    # Each of the two, by what may not come first.
    required = client.chat.completions.create(**dict(ask, tool_choice="required")).choices[0].message
    check_weather(calls_of(required)[0][1])
    told = client.chat.completions.create(**dict(ask, tool_choice="none")).choices[0].message
    check_city(told.content)
    words = dict(ASK, tools=[WEATHER], temperature=0, extra_body={"guided_choice": ["sun", "snow"], "logit_bias": {
        str(id): -100 for text in ("<", "{", '{"', "<t", "{\n") for id in server.request("/tokenize", {"prompt": text})[2]["tokens"]}})
    assert client.chat.completions.create(**words).choices[0].message.content in ("sun", "snow")
    assert streamed(client, **words)[0] in ("sun", "snow")
    flat = {"type": "function", **WEATHER["function"], "strict": False}
    either = client.responses.create(model="smol", input=QUESTION, tools=[flat], temperature=0, max_output_tokens=80,
                                     text={"format": {"type": "json_schema", "name": "city", "strict": True, "schema": CITY}})
    tool = {"name": "get_weather", "input_schema": WEATHER["function"]["parameters"]}
    blocks = server.request("/v1/messages", {"max_tokens": 80, "temperature": 0, "messages": QUESTION, "tools": [tool], "output_config": {"format": {"type": "json_schema", "schema": CITY}}})[2]["content"]
    whole = server.request("/api/chat", {"model": "smol", "messages": QUESTION, "tools": [WEATHER], "format": CITY, "stream": False, "options": {"num_predict": 80, "temperature": 0}})[2]["message"]
    for called, said in ((either.output[0].type == "function_call", either.output_text), (blocks[0]["type"] == "tool_use", blocks[0].get("text")), ("tool_calls" in whole, whole["content"])):
        if not called:
            check_city(said)
    assert server.stop() == 0


def test_reasoning_is_split_off(smollm2, tmp_path):
    thinking = "{% for m in messages %}{{ m.content }}\n{% endfor %}{% if enable_thinking is not defined or enable_thinking %}<think>{% else %}<think></think>{% endif %}"
    (tmp_path / "template.jinja").write_text(thinking)
    server = Server(smollm2, "--alias", "smol", "--chat-template-file", tmp_path / "template.jinja")
    client = server.client()
    ask = dict(ASK, max_tokens=12)
    whole = client.chat.completions.create(**ask).choices[0].message
    assert whole.content == "" and whole.reasoning_content and whole.reasoning_content == whole.reasoning
    content, reasoning, calls, _ = streamed(client, **ask)
    assert (content, reasoning, calls) == ("", whole.reasoning_content, [])
    off = client.chat.completions.create(**ask, extra_body={"chat_template_kwargs": {"enable_thinking": False}}).choices[0].message
    assert off.content and not hasattr(off, "reasoning_content")
    assert client.chat.completions.create(**ask, reasoning_effort="none").choices[0].message.content == off.content
    # A shape is the answer's, not the reasoning's: it waits until that ends.
    shaped = client.chat.completions.create(**ask, extra_body={"guided_choice": ["yes", "no"]}).choices[0]
    assert shaped.message.reasoning_content == whole.reasoning_content and shaped.finish_reason == "length"
    assert client.chat.completions.create(**ask, extra_body={"guided_choice": ["yes", "no"], "chat_template_kwargs": {"enable_thinking": False}}).choices[0].message.content in ("yes", "no")
    both = client.chat.completions.create(**dict(ask, max_tokens=20), extra_body={"guided_regex": "<think>Well\\.</think>\n\nYes\\.", "chat_template_kwargs": {"enable_thinking": False}}).choices[0].message
    assert (both.reasoning, both.content) == ("Well.", "Yes.")
    blocks = anthropic.Anthropic(base_url=server.url, api_key="none").messages.create(model="smol", max_tokens=12, messages=QUESTION, thinking={"type": "enabled", "budget_tokens": 1024}).content
    assert [block.type for block in blocks] == ["thinking"]
    thought = ollama.Client(host=server.url).chat("smol", QUESTION, think=True, options={"num_predict": 12, "temperature": 0})
    assert thought.message.thinking == whole.reasoning_content and thought.message.content == ""
    assert server.stop() == 0


def test_models_are_loaded_when_they_are_asked_for_and_make_room(smollm2):
    server = Server(f"a={smollm2}", f"b={smollm2}", "--memory-limit-mib", 220, "--kv-cache-mib", 64)
    status = lambda: {card["id"]: card["status"] for card in server.request("/v1/models")[2]["data"]}
    ask = lambda model, **more: server.client().chat.completions.create(model=model, messages=QUESTION, temperature=0, max_tokens=8, **more)
    assert status() == {"a": "loaded", "b": "unloaded"}
    first = ask("a").choices[0].message.content
    assert ask("b").choices[0].message.content == first and status() == {"a": "unloaded", "b": "loaded"}
    assert [model["name"] for model in server.request("/api/ps")[2]["models"]] == ["b"]
    # A model at work is not sent away: the other waits until it is idle.
    running = ask("b", stream=True, extra_body={"ignore_eos": True, "max_tokens": 200})
    next(running)
    assert ask("a").choices[0].message.content == first
    assert sum(1 for _ in running) > 150
    assert server.request("/models/unload", {"model": "a"})[2] == {"success": True} and status() == {"a": "unloaded", "b": "unloaded"}
    assert server.request("/models/load", {"model": "b"})[0] == 200 and status()["b"] == "loaded"
    # Typed clients (Zed) read every member of a model's details, in memory or not.
    assert all(set(model["details"]) >= {"format", "family", "families", "parameter_size", "quantization_level"} for model in server.request("/api/tags")[2]["models"])
    for path, body in (("/api/generate", {"keep_alive": 0}), ("/api/chat", {"messages": [], "keep_alive": "0s"})):
        assert server.request(path, {"model": "b", **body})[2]["done_reason"] == "unload" and status() == {"a": "unloaded", "b": "unloaded"}
        assert server.request(path, {"model": "b", **body, "keep_alive": "5m"})[2]["done_reason"] == "load" and status()["b"] == "loaded"
    assert server.stop() == 0
    small = Server(smollm2, "--memory-limit-mib", 150, "--kv-cache-mib", 64)
    assert 1000 < small.request("/props")[2]["default_generation_settings"]["n_ctx"] < 8192  # what the limit leaves
    assert small.stop() == 0
