// Uploads a file with tus-js-client, as one JSON object on the command line says, and tells what happened: one JSON object a line.
'use strict'

const { createHash } = require('node:crypto')
const fs = require('node:fs')
const tus = require('tus-js-client')

const order = JSON.parse(process.argv[2])
const bytes = fs.readFileSync(order.file)

function tell(event, more) {
  fs.writeSync(1, JSON.stringify({ event, ...more }) + '\n')
}

// What tus-js-client does not do by itself: vouch for the bytes of a request.
function vouch(request) {
  const offset = Number(request.getHeader('Upload-Offset'))
  const part = bytes.subarray(offset, Math.min(offset + (order.chunkSize ?? bytes.length), bytes.length))
  const sum = createHash(order.checksum).update(order.wrong ? 'something else' : part)
  request.setHeader('Upload-Checksum', `${order.checksum} ${sum.digest('base64')}`)
}

const upload = new tus.Upload(order.buffer ? bytes : fs.createReadStream(order.file), {
  endpoint: order.endpoint,
  uploadUrl: order.uploadUrl ?? null,
  uploadSize: bytes.length,
  uploadDataDuringCreation: order.atOnce ?? false,
  chunkSize: order.chunkSize ?? Number.POSITIVE_INFINITY,
  headers: order.headers,
  metadata: order.metadata ?? {},
  retryDelays: order.retryDelays ?? null,
  removeFingerprintOnSuccess: true,
  onBeforeRequest(request) {
    if (order.checksum && request.getMethod() === 'PATCH') vouch(request)
    tell('asked', { method: request.getMethod(), url: request.getURL(), offset: Number(request.getHeader('Upload-Offset') ?? -1) })
  },
  onAfterResponse(request, response) {
    tell('answered', { method: request.getMethod(), status: response.getStatus(), headers: response.getUnderlyingObject().headers })
  },
  async onChunkComplete(_size, accepted) {
    if (order.stopAfter === undefined || accepted < order.stopAfter) return
    const url = upload.url
    await upload.abort(order.terminate ?? false)
    tell('stopped', { url, accepted })
  },
  onSuccess() {
    tell('done', { url: upload.url })
  },
  onError(error) {
    tell('failed', { message: error.message, status: error.originalResponse?.getStatus() ?? 0 })
    process.exitCode = 1
  },
})

upload.start()
