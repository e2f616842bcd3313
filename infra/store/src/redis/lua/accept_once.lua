-- KEYS: message, messages, once, due Y.
-- ARGV: id, head and entry, idempotency key, fingerprint, answer, created at, until, ttl ms.
-- Gives {0} for a new message, {1, id, answer} for one accepted before, {2} for a key used with another meaning.
local id = ARGV[1]
local before = call('GET', KEYS[3])
if before and tonumber(ARGV[6]) < number8(before, 1) then
  if string.sub(before, 25, 56) ~= ARGV[4] then return {2} end
  local first = string.sub(before, 9, 24)
  -- The same message: this call was sent twice, because its first answer was lost.
  if first ~= id then return {1, first, string.sub(before, 57)} end
  return {0}
end
local forgotten = bytes8(tonumber(ARGV[7]))
call('SET', KEYS[3], forgotten .. id .. ARGV[4] .. ARGV[5], 'PX', ARGV[8])
call('ZADD', KEYS[4], ARGV[7], forgotten .. ARGV[3])
call('SET', KEYS[1], ARGV[2], 'NX')
call('ZADD', KEYS[2], 0, id)
return {0}
