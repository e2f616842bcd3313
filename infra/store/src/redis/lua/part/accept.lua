-- Keeps a message, unless it is there already because it was appended first.
local function accept(message, messages, id, kept)
  call('SET', message, kept, 'NX')
  call('ZADD', messages, 0, id)
end

