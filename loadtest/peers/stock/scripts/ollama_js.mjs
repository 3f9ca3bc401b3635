// ollama-js.
import { createRequire } from 'node:module'
import { ASKED, CITY, QUESTION, TOO_LONG, WORDS, askedAgain, check, cut, left, mesh, mustFail, pause, run, unheard } from './harness.mjs'

const require = createRequire(process.env.CHOIR_NODE_MODULES + '/')
const { Ollama } = require('ollama')
const { version } = require('ollama/package.json')
const client = () => new Ollama({ host: mesh.address })
const options = { temperature: 0, num_predict: 48 }
const weather = {
  type: 'function',
  function: { name: 'weather', description: 'Tells the weather.', parameters: CITY },
}

async function joined (parts) {
  let text = ''
  for await (const part of parts) text += part.message.content
  return text
}

await run('ollama-js', version, {
  async plain () {
    const names = (await client().list()).models.map(model => model.name)
    check(names.includes(`${mesh.model}:latest`), names)
    check((await client().show({ model: mesh.model })).capabilities.length, 'capabilities')
    check((await client().ps()).models.length, 'ps')
    let reply
    for (const model of [mesh.ensemble, mesh.model]) {
      reply = await client().chat({ model, messages: ASKED, options })
      check(reply.message.content && reply.eval_count, reply)
    }
    check((await client().generate({ model: mesh.model, prompt: QUESTION, options })).response === reply.message.content, reply)
    return reply.message.content
  },
  async stream () {
    for (const model of [mesh.model, mesh.ensemble]) {
      const whole = await client().chat({ model, messages: ASKED, options })
      const text = await joined(await client().chat({ model, messages: ASKED, options, stream: true }))
      check(text === whole.message.content, text, whole)
    }
  },
  async tools () {
    const called = await client().chat({ model: mesh.caller, messages: ASKED, tools: [weather] })
    const [call] = called.message.tool_calls
    check(call.function.name === 'weather' && call.function.arguments.city === 'Paris', call)
    const messages = [...ASKED, called.message, { role: 'tool', tool_name: 'weather', content: 'sunny' }]
    check((await client().chat({ model: mesh.model, messages, tools: [weather], options })).message, 'no message')
  },
  async schema () {
    const reply = await client().chat({ model: mesh.model, messages: ASKED, format: CITY, options })
    check(['Lima', 'Paris'].includes(JSON.parse(reply.message.content).city), reply)
    return reply.message.content
  },
  async embeddings () {
    const { embeddings } = await client().embed({ model: mesh.model, input: ['one', 'two'] })
    check(embeddings.length === 2 && embeddings[0].length === embeddings[1].length, embeddings.length)
  },
  unknown: () => mustFail(() => client().chat({ model: 'nobody', messages: ASKED }), 'nobody', '404'),
  oversize: () => mustFail(() => client().generate({ model: mesh.model, prompt: TOO_LONG }), 'tokens', 'context', '400'),
  async limited () {
    const one = new Ollama({ host: mesh.address, headers: { authorization: `Bearer ${mesh.limitedKey}` } })
    const several = async () => { for (let n = 0; n < 6; n++) await one.generate({ model: mesh.model, prompt: unheard(), options }) }
    return await mustFail(several, 'within a minute', '429')
  },
  'hang-up': () => left(async () => {
    const pieces = await client().chat({ model: mesh.slow, messages: ASKED, stream: true })
    setTimeout(() => pieces.abort(), 500)
    try { for await (const _ of pieces); } catch (error) { check(error.name === 'AbortError', error.name) }
    await pause(1)
  }),
  async restart () {
    const seen = await cut(await client().chat({ model: mesh.slow, messages: ASKED, stream: true }))
    const again = await askedAgain(() => client().chat({ model: mesh.slow, messages: ASKED }))
    check(again.message.content === WORDS, again)
    return seen
  },
})
