-- KEYS: message, messages, due K [, once, due Y].
-- ARGV: id, expiry (8 bytes), kept until, entry [, idempotency key, fingerprint, answer, created at, until, ttl].
-- Gives {0} for a new message, {1, id, answer} for one accepted before, {2} for a key used with another meaning.
local id = ARGV[1]
if #KEYS == 5 then
  local before = call('GET', KEYS[4])
  if before and tonumber(ARGV[8]) < number8(before, 1) then
    if string.sub(before, 25, 56) ~= ARGV[6] then return {2} end
    local first = string.sub(before, 9, 24)
    -- The same message: this call was sent twice, because its first answer was lost.
    if first ~= id then return {1, first, string.sub(before, 57)} end
    return {0}
  end
  local forgotten = bytes8(tonumber(ARGV[9]))
  call('SET', KEYS[4], forgotten .. id .. ARGV[6] .. ARGV[7], 'PX', ARGV[10])
  call('ZADD', KEYS[5], ARGV[9], forgotten .. ARGV[5])
end
local happened = call('GETRANGE', KEYS[1], 0, 23)
if happened == '' then happened = string.rep('\0', 24) end
call('SET', KEYS[1], happened .. ARGV[2] .. ARGV[4])
call('ZADD', KEYS[2], 0, id)
call('ZADD', KEYS[3], ARGV[3], id)
return {0}
