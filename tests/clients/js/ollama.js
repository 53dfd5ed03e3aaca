// The `ollama` package for JavaScript, as it is but for the address.  Prints what it got as one JSON object.
// Arguments: address, then a JSON object with the models and requests that conftest.py has for every client.
import { Ollama } from 'ollama'

const [address, given] = process.argv.slice(2)
const { demo, able, encoder, paris, asked, lima, tool, texts } = JSON.parse(given)
const ollama = new Ollama({ host: address })
const options = { temperature: 0, num_predict: 64 }

const gathered = async (request) => {
  const parts = []
  for await (const part of await ollama.chat({ ...request, options, stream: true })) parts.push(part)
  return parts
}
const failure = async (request) => {
  try {
    return { status: 200, reply: await request() }
  } catch (error) {
    return { name: error.name, status: error.status_code, message: error.message }
  }
}

const streamed = await gathered({ model: demo, messages: paris })
const generated = []
for await (const part of await ollama.generate({ model: demo, prompt: 'Count.', options, stream: true })) {
  generated.push(part.response)
}
console.log(JSON.stringify({
  whole: await ollama.chat({ model: demo, messages: paris, options }),
  streamed,
  generated: generated.join(''),
  generatedWhole: (await ollama.generate({ model: demo, prompt: 'Count.', options })).response,
  calls: (await ollama.chat({ model: able, messages: lima, tools: [tool], options })).message.tool_calls,
  callsStreamed: (await gathered({ model: able, messages: lima, tools: [tool] })).flatMap((part) => part.message.tool_calls ?? []),
  thought: (await ollama.chat({ model: able, messages: asked, think: true, options })).message,
  embeddings: (await ollama.embed({ model: encoder, input: texts })).embeddings,
  list: (await ollama.list()).models.map((model) => model.model),
  loaded: (await ollama.ps()).models.map((model) => model.model),
  capabilities: (await ollama.show({ model: able })).capabilities,
  version: (await ollama.version()).version,
  notFound: await failure(() => ollama.chat({ model: 'nope', messages: paris })),
  notFoundStreamed: await failure(() => gathered({ model: 'nope', messages: paris })),
  noTools: await failure(() => ollama.chat({ model: demo, messages: paris, tools: [tool] })),
  deleted: await failure(() => ollama.delete({ model: 'nope' })),
}))
